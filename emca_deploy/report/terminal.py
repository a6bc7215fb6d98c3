"""Tables for the terminal. They fit its width: where there is no room, whole columns stay out, and are named."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emca_deploy.harness.latency_results import LatencyResult, ProfileReport
from emca_deploy.harness.results import DeployReport
from emca_deploy.report.formats import NONE, fixed, interval, plain, uniform
from emca_deploy.report.notices import warnings_of
from emca_deploy.report.table import Column, deploy_columns
from emca_deploy.report.verdict import Verdict, decide

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_deploy", "print_profile"]

_STYLES = {"recommended": "bold green", "caution": "bold yellow", "keep": "bold", "unknown": "bold yellow"}
_LONGEST_NAME = 36
_GAP = 2


def print_deploy(report: DeployReport, console: "Console") -> None:
    """Print a deployment: a row for each candidate, the verdict, warnings, and the file to deploy."""
    verdict = decide(report)
    _text(console, plain(report.title), "bold")
    chosen = [index for index, c in enumerate(report.candidates) if c.name == verdict.candidate]
    shaky = [index for index, c in enumerate(report.candidates) if not c.latency.stable]
    _print_columns(console, deploy_columns(report), chosen, shaky)
    _print_verdict(console, verdict)
    for names, warning in warnings_of(report):
        _text(console, f"warning: {names + ': ' if names else ''}{warning}", "yellow")
    for index in chosen:
        console.print()
        _text(console, f"deploy this file: {plain(report.candidates[index].latency.artifact)}", wrap=False)


def print_profile(report: ProfileReport, console: "Console") -> None:
    """Print latencies: a row for each artifact, and how many times faster it is than the first. Warnings are the caller's."""
    if not report.results:
        return
    first = report.results[0]
    _text(console, f"{first.scenario}, batch {first.batch}, target {plain(first.target)}", "bold")
    _print_columns(console, _profile_columns(report), (), [i for i, r in enumerate(report.results) if not r.stable])


def _profile_columns(report: ProfileReport) -> tuple[Column, ...]:
    results: Sequence[LatencyResult] = report.results
    summaries = [result.latency_ms for result in results]
    milliseconds = uniform([value for s in summaries for value in (s.p50, s.p90, s.p99)])
    ratios = ["first", *(f"{fixed(c.ratio_p50)}x" for c in report.comparisons)]
    limits = ["", *(interval(c.ratio_ci95) for c in report.comparisons)]
    columns = [
        Column("artifact", tuple(plain(result.artifact) for result in results)),
        Column("backend", tuple(plain(result.backend) for result in results), rank=1),
        Column("precision", tuple(plain(result.precision) for result in results), rank=4),
        Column("p50 ms", tuple(milliseconds[0::3]), tuple(interval(s.p50_ci95) for s in summaries), 0, 8),
        Column("p90 ms", tuple(milliseconds[1::3]), rank=5),
        Column("p99 ms", tuple(milliseconds[2::3]), rank=2),
        Column("images/s", tuple(uniform([result.throughput_images_per_s for result in results])), rank=3),
        Column("load ms", tuple(uniform([result.load_ms for result in results])), rank=6),
        Column("RSS MiB", tuple(fixed(result.peak_rss_mib, 0) for result in results), rank=7),
    ]
    if len(ratios) == len(results) > 1:
        columns.append(Column("speed-up", tuple(ratios), tuple(limits), 0, 1))
    return tuple(columns)


def _print_columns(console: "Console", columns: tuple[Column, ...], chosen: Sequence[int], shaky: Sequence[int]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown, intervals, left_out = _fitting(columns, console.width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))  # the box adds 1
    for column in shown:
        first = column is columns[0]
        table.add_column(column.heading, justify="left" if first else "right", no_wrap=not first, overflow="fold")
    for index in range(len(columns[0].cells)):
        cells = [_cell(column, index, column in intervals) for column in shown]
        cells[0] += "*" if index in shaky else ""
        table.add_row(*(Text(cell) for cell in cells), style="bold" if index in chosen else "")
    console.print(table)
    notes = ["( ): 95% interval"] if intervals else []
    notes += ["*: not stable, see the warnings"] if shaky else []
    notes += [f"no room for: {', '.join(left_out)}"] if left_out else []
    if notes:
        _text(console, "; ".join(notes), "dim")


def _cell(column: Column, index: int, with_interval: bool) -> str:
    cell = column.cells[index]
    return f"{cell} ({column.interval[index]})" if with_interval and column.interval[index] else cell


def _fitting(columns: tuple[Column, ...], width: int) -> tuple[list[Column], list[Column], list[str]]:
    """Leave out columns and intervals, the highest rank first, until the rest fits; return what is shown and what is not."""
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
        total += min(needed + 1, _LONGEST_NAME) if column is shown[0] else needed  # 1: the mark of an unstable one
    return total + _GAP * (len(shown) - 1)


def _print_verdict(console: "Console", verdict: Verdict) -> None:
    console.print()
    _text(console, verdict.sentence, _STYLES[verdict.level])
    for caution in verdict.cautions:
        _text(console, f"- {caution}")


def _text(console: "Console", text: str, style: str = "", *, wrap: bool = True) -> None:
    """Print foreign text as it is: no markup, no highlighting. A path is not wrapped, so that it can be copied."""
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=not wrap)
