"""What `tune` found, on the terminal."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.formats import NONE, interval, plain, significant
from emca_deploy.results.tuning import TuneReport, TuneRound, Values

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_tuning"]

MOST_ROWS = 12


def print_tuning(report: TuneReport, console: "Console") -> None:
    """Print the settings of the first round, which has all single changes, and what came of the search."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False)

    what = f"{plain(report.backend)}, {report.scenario}, batch {report.settings.get('batch', report.batch)}"
    say(f"{plain(report.artifact)}: {what}", "bold")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, heading in enumerate(("settings", "p50 ms", "images/s", "times default", "95% interval", "tried")):
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    rows = _rows(report.rounds)
    for changed, cells in rows[:MOST_ROWS]:
        chosen = changed == report.best and report.settings != report.default
        table.add_row(*(Text(cell) for cell in (_named(changed), *cells)), style="bold" if chosen else "")
    if rows:
        console.print(table)
    if len(rows) > MOST_ROWS:
        say(f"and {len(rows) - MOST_ROWS} slower ones (--json has all)", "dim")
    say(_verdict(report))
    if report.saved_to:
        say(f"kept in {plain(report.saved_to)}")
    elif report.complete and report.settings != report.default:
        say(f"use them: {_named(report.best)}", "dim")


def _rows(rounds: tuple[TuneRound, ...]) -> list[tuple[Values, tuple[str, ...]]]:
    """Return what each of the settings came to in the last round it was in; those that went furthest first."""
    found: list[tuple[int, float, Values, tuple[str, ...]]] = []
    for number, done in reversed(list(enumerate(rounds, start=1))):
        for trial in done.trials:
            if all(trial.changed != other for _, _, other, _ in found):
                cells = (
                    significant(trial.p50_ms),
                    significant(trial.throughput_images_per_s),
                    f"{trial.ratio:.3f}",
                    interval(trial.ratio_ci95, 3),
                    f"{number} round{'s' if number > 1 else ''}",
                )
                found.append((number, trial.ratio, trial.changed, cells))
    found.sort(key=lambda row: (-row[0], -row[1]))
    return [(changed, cells) for _, _, changed, cells in found]


def _named(values: Values) -> str:
    return ", ".join(f"{plain(name)}={plain(str(value))}" for name, value in values.items()) or "default"


def _verdict(report: TuneReport) -> str:
    if not report.complete:
        return f"fastest so far: {_named(report.best)}"
    if report.ratio is None or report.ratio_ci95 is None:
        return f"the default settings stay: nothing was faster ({_named(report.default)})"
    ratio = f"{report.ratio:.3f} times the default, {interval(report.ratio_ci95, 3)}"
    if report.settings == report.default:
        return f"the default settings stay: no difference shown for {_named(report.best)} ({ratio})"
    if report.scenario == "offline":
        speed = f"{_or_none(report.default_images_per_s)} to {_or_none(report.best_images_per_s)} images/s"
    else:
        speed = f"{_or_none(report.default_p50_ms)} to {_or_none(report.best_p50_ms)} ms"
    return f"fastest: {_named(report.best)} ({ratio}; {speed})"


def _or_none(value: float | None) -> str:
    return NONE if value is None else significant(value)
