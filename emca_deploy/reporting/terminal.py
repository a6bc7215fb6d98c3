"""Tables that fit the terminal's width: where space is short, whole columns are left out and named."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emca_deploy.reporting.drawing import drawing_line
from emca_deploy.reporting.formats import NONE, plain
from emca_deploy.reporting.load import (
    co_run_lines,
    crowd_columns,
    end_to_end_lines,
    highest_rate_lines,
    outlier_lines,
    paced_columns,
    real_image_lines,
)
from emca_deploy.reporting.output import say, show_table
from emca_deploy.reporting.recommendation import choices_of, warnings_of
from emca_deploy.reporting.sweeps.words import change_of
from emca_deploy.reporting.table import Column, deploy_columns, profile_columns, profile_heading
from emca_deploy.results.codec import from_json
from emca_deploy.results.deploy import DeployReport
from emca_deploy.results.drawing import Drawing
from emca_deploy.results.latency import ProfileReport
from emca_deploy.results.recommendation import chosen_names

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["LEVEL_STYLES", "print_columns", "print_deploy", "print_profile"]

LEVEL_STYLES = {"recommended": "bold green", "caution": "bold yellow", "keep": "bold", "unknown": "bold yellow"}
"""Style of each level of a recommendation."""
_LONGEST_NAME = 36
_GAP = 2


def print_deploy(report: DeployReport, console: "Console") -> None:
    """Print a deployment: a row for each candidate, the recommendation, warnings, and the file to deploy."""
    say(console, plain(report.title), "bold")
    use = chosen_names(report)
    chosen = [index for index, c in enumerate(report.candidates) if c.name in use]
    shaky = [index for index, c in enumerate(report.candidates) if not c.latency.stable]
    print_columns(console, deploy_columns(report), chosen, shaky)
    if drawing := report.calibration.get("drawing"):
        say(console, f"calibration {drawing_line(from_json(Drawing, drawing))}", "dim")
    console.print()
    for choice in choices_of(report):
        say(console, f"{choice.place}: {choice.sentence}" if report.requirements else choice.sentence, LEVEL_STYLES[choice.level])
        for caution in choice.cautions:
            say(console, f"- {caution}")
        for each in choice.lost if report.requirements else ():
            say(console, f"- {each.name} {each.outcome}: {each.reason}")
    if report.changes:
        rows = [((plain(each.key), *change_of(each)), False) for each in report.changes]
        show_table(console, ("candidate", f"time / {plain(report.against or '')}", "verdict", "accuracy, points"), rows)
    for names, warning in warnings_of(report):
        say(console, f"warning: {names + ': ' if names else ''}{warning}", "yellow")
    for index in chosen:
        console.print()
        say(console, f"deploy this file: {plain(report.candidates[index].latency.artifact)}", wrap=False)


def print_profile(report: ProfileReport, console: "Console") -> None:
    """Print latencies without warnings: a row for each artifact, and how many times faster it is than the first."""
    if not report.results:
        return
    say(console, profile_heading(report), "bold")
    print_columns(console, profile_columns(report), (), [i for i, r in enumerate(report.results) if not r.stable])
    if any(result.paced for result in report.results):
        console.print()
        say(console, "frames at a rate: from when a frame comes to its answer", "bold")
        print_columns(console, paced_columns(report.results), (), ())
    if any(result.concurrency for result in report.results):
        console.print()
        say(console, "calls at once", "bold")
        print_columns(console, crowd_columns(report.results), (), ())
    for line in (
        *highest_rate_lines(report.results),
        *co_run_lines(report.results),
        *real_image_lines(report.results),
        *end_to_end_lines(report.results),
        *outlier_lines(report.results),
    ):
        say(console, line)


def print_columns(console: "Console", columns: tuple[Column, ...], chosen: Sequence[int], shaky: Sequence[int]) -> None:
    """Print a table with a row for each cell of the columns; rows in `chosen` are bold, those in `shaky` get a mark."""
    shown, intervals, left_out = _fitting(columns, console.width)
    rows = []
    for index in range(len(columns[0].cells)):
        cells = [_cell(column, index, column in intervals) for column in shown]
        cells[0] += "*" if index in shaky else ""
        rows.append((cells, index in chosen))
    show_table(console, [column.heading for column in shown], rows, gap=_GAP - 1)  # the box adds 1
    bounds = any(text.startswith("\u2264") for column in intervals for text in column.interval)
    notes = [f"( ): 95% interval{', or upper bound with 95% confidence' if bounds else ''}"] if intervals else []
    notes += ["*: not stable, see the warnings"] if shaky else []
    notes += [f"no room for: {', '.join(left_out)}"] if left_out else []
    if notes:
        say(console, "; ".join(notes), "dim")


def _cell(column: Column, index: int, with_interval: bool) -> str:
    cell = column.cells[index]
    return f"{cell} ({column.interval[index]})" if with_interval and column.interval[index] else cell


def _fitting(columns: tuple[Column, ...], width: int) -> tuple[list[Column], list[Column], list[str]]:
    """Leave out columns and intervals, the highest rank first, until the rest fits; return the shown ones and the others."""
    shown = [column for column in columns if any(cell != NONE for cell in column.cells)]
    intervals = [column for column in shown if any(column.interval)]
    left_out: list[str] = []
    ranks = sorted({rank for column in shown for rank in (column.rank, column.interval_rank) if rank}, reverse=True)
    for rank in ranks:
        if _width(shown, intervals) <= width:
            break
        left_out += [column.heading for column in shown if column.rank == rank]
        left_out += [f"{column.heading} interval" for column in intervals if column.interval_rank == rank]
        shown = [column for column in shown if column.rank != rank]
        intervals = [column for column in intervals if column.interval_rank != rank and column in shown]
    return shown, intervals, left_out


def _width(shown: list[Column], intervals: list[Column]) -> int:
    total = 0
    for column in shown:
        cells = (_cell(column, index, column in intervals) for index in range(len(column.cells)))
        needed = max(len(column.heading), *(len(cell) for cell in cells))
        total += min(needed + 1, _LONGEST_NAME) if column is shown[0] else needed  # 1 for the mark of an unstable candidate
    return total + _GAP * (len(shown) - 1)
