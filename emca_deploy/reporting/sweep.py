"""A sweep on the terminal: a row for each cell, the Pareto front, and what was not measured."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.formats import NONE, fixed, interval, plain, uniform, upper
from emca_deploy.reporting.output import say
from emca_deploy.reporting.table import Column
from emca_deploy.reporting.terminal import print_columns
from emca_deploy.results.sweep import SweepReport, SweepRow, ms_per_image

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["finished_line", "print_sweep"]

_PARTS = ("image_size", "backend", "precision", "target", "scenario", "batch", "threads")


def finished_line(row: SweepRow) -> str:
    """Return one line about a finished cell."""
    if row.status == "failed":
        return f"{plain(row.name)}: failed: {plain(row.reason)}"
    accuracy = "" if row.accuracy is None else f", {row.metric} {fixed(row.accuracy)} %"
    return f"{plain(row.name)}: {uniform([row.p50_ms])[0]} ms{accuracy}"


def print_sweep(report: SweepReport, console: "Console") -> None:
    """Print the cells that are done, and below them those that failed or were not measured."""
    done = sorted((row for row in report.cells if row.status == "done"), key=ms_per_image)
    failed = [row for row in report.cells if row.status == "failed"]
    pending = [row for row in report.cells if row.status == "pending"]
    counts = f"{len(done)} done, {len(failed)} failed, {len(pending)} not measured"
    say(console, f"{plain(report.plan)}: {len(report.cells)} cells, {counts}", "bold")
    if done:
        front = [index for index, row in enumerate(done) if row.pareto]
        print_columns(console, _columns(done), front, [index for index, row in enumerate(done) if row.stable is False])
        say(console, "front: no other cell of its machine, target and scenario is faster per image and as accurate", "dim")
    for row in failed:
        say(console, f"failed: {plain(row.name)}: {plain(row.reason)}", "red")
    if pending:
        _print_pending(pending, console)


def _print_pending(rows: list[SweepRow], console: "Console") -> None:
    seconds = sum(row.estimate_s or 0.0 for row in rows)
    say(console, f"not measured, about {seconds / 60:.1f} minutes:")
    for number, row in enumerate(rows, 1):
        reason = f": {plain(row.reason)}" if row.reason else ""
        say(console, f"  {number}. {row.key} {plain(row.name)}, about {row.estimate_s or 0.0:.0f} s{reason}{_predicted(row)}")


def _predicted(row: SweepRow) -> str:
    if row.predicted_ms is None or row.predicted_ci95_ms is None or row.front_chance is None:
        return ""
    limits = " to ".join(uniform(row.predicted_ci95_ms))
    return f"; predicted {uniform([row.predicted_ms])[0]} ms ({limits}), on the front with {100 * row.front_chance:.0f} %"


def _columns(rows: list[SweepRow]) -> tuple[Column, ...]:
    """Return the columns; a value that all cells share has none."""
    varied = [part for part in _PARTS if len({getattr(row.cell, part) for row in rows}) > 1]
    milliseconds = uniform([value for row in rows for value in (row.p50_ms, row.p99_ms)])
    named = any(row.machine for row in rows)
    machines = (Column("machine", tuple(plain(row.machine or "this one") for row in rows)),) if named else ()
    metric = next((row.metric for row in rows if row.metric), "top-1")
    return (
        Column("model", tuple(plain(row.cell.model) for row in rows)),
        *machines,
        *(Column(part.replace("_", " "), tuple(plain(str(_shown(getattr(row.cell, part)))) for row in rows)) for part in varied),
        Column("p50 ms", tuple(milliseconds[0::2])),
        Column(
            "p99 ms",
            tuple(milliseconds[1::2]),
            tuple("" if row.p99_ms is None else upper(row.p99_upper95_ms) for row in rows),
            rank=2,
            interval_rank=6,
        ),
        Column("images/s", tuple(uniform([row.images_per_s for row in rows])), rank=4),
        Column(f"{metric} %", tuple(fixed(row.accuracy) for row in rows)),
        Column(
            "drop, points",
            tuple(fixed(row.drop) for row in rows),
            tuple("" if row.drop_ci95 is None else interval(row.drop_ci95) for row in rows),
            interval_rank=3,
        ),
        Column("MiB", tuple(uniform([row.file_mib for row in rows])), rank=5),
        Column("front", tuple("*" if row.pareto else "" for row in rows)),
    )


def _shown(value: object) -> object:
    return NONE if value is None else value
