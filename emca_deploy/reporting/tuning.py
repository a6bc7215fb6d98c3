"""Results of `tune` on the terminal."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.formats import interval, plain, significant
from emca_deploy.reporting.output import say, show_table
from emca_deploy.results.tuning import TuneReport, TuneRound, Values

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_tuning"]

HEADINGS = ("settings", "p50 ms", "images/s", "times default", "95% interval", "tried")
MOST_ROWS = 12


def print_tuning(report: TuneReport, console: "Console") -> None:
    """Print the settings that were tried, and the result of the search."""
    what = f"{plain(report.backend)}, {report.scenario}, batch {report.settings.get('batch', report.batch)}"
    say(console, f"{plain(report.artifact)}: {what}", "bold")
    rows = _rows(report.rounds)
    tuned = report.settings != report.default
    shown = [((_named(changed), *cells), tuned and changed == report.best) for changed, cells in rows[:MOST_ROWS]]
    if rows:
        show_table(console, HEADINGS, shown, gap=None)
    if len(rows) > MOST_ROWS:
        say(console, f"and {len(rows) - MOST_ROWS} slower ones (--json has all)", "dim")
    say(console, _verdict(report))
    if report.saved_to:
        say(console, f"kept in {plain(report.saved_to)}")
    elif report.complete and report.settings != report.default:
        say(console, f"use them: {_named(report.best)}", "dim")


def _rows(rounds: tuple[TuneRound, ...]) -> list[tuple[Values, tuple[str, ...]]]:
    """Return each trial's cells from its last round; trials with the most rounds come first."""
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
        speed = f"{significant(report.default_images_per_s)} to {significant(report.best_images_per_s)} images/s"
    else:
        speed = f"{significant(report.default_p50_ms)} to {significant(report.best_p50_ms)} ms"
    return f"fastest: {_named(report.best)} ({ratio}; {speed})"
