"""The search for a model within the accuracy gate on the terminal, and the error where there is none."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emca_deploy.errors import GateError
from emca_deploy.reporting.formats import fixed, interval, plain
from emca_deploy.reporting.output import say, show_table
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.detection import DetectionReport
from emca_deploy.results.figures import Figure, figures_of
from emca_deploy.results.gate import GateReport, Verdict

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["closed_gate", "missed_gate", "print_gate"]


def print_gate(report: GateReport, console: "Console") -> None:
    """Print a row for each measured model, the written one in bold, and its slowdown."""
    how = f"simulated with {report.measured_with}" if report.simulated else f"on {report.measured_with}"
    names = [figure.name for figure in report.best.shown]
    values = ", ".join(f"{figure.name} {fixed(figure.reference)}%" for figure in report.best.shown)
    title = f"{values} in fp32 on {report.images:,} images; gate: drop at most {report.max_drop:g} points, {how}"
    say(console, plain(title), "bold")
    rows = []
    before: tuple[str, ...] = ()
    for index, step in enumerate(report.steps):
        added = ", ".join(plain(pattern) for pattern in step.kept_float if pattern not in before)
        if step.fine_tuned:
            added = f"{', '.join(map(plain, step.kept_float)) or 'nothing'}, fine-tuned"
        elif added:
            added = f"+ {added}"
        figures = [cell for figure in step.shown for cell in (fixed(figure.value), _with_interval(figure))]
        cells = (added or "nothing", fixed(step.float_macs_percent, 1), *figures)
        rows.append((cells, index == report.chosen))
        before = step.kept_float
    headings = [heading for name in names for heading in (f"{name} %", "drop, points (95%)")]
    show_table(console, ("left in float", "MACs %", *headings), rows)
    for line in _notes(report):
        say(console, line)


def _with_interval(figure: Figure) -> str:
    return fixed(figure.drop) if figure.drop_ci95 is None else f"{fixed(figure.drop)} ({interval(figure.drop_ci95)})"


def _notes(report: GateReport) -> list[str]:
    notes = []
    if report.best.kept_float:
        notes.append(f"left in float: {plain(' '.join(report.best.kept_float))}")
    if report.slowdown is not None and report.slowdown_ci95 is not None:
        notes.append(
            f"median latency {fixed(report.slowdown)} times that with all in INT8 (95%: {interval(report.slowdown_ci95)}), "
            f"on {plain(report.measured_with)}"
        )
    elif report.simulated:
        notes.append("this machine cannot run the backend: ONNX Runtime measured the accuracy, and latency is not measured")
    return notes


def closed_gate(max_drop: float, verdict: Verdict, report: AccuracyReport | DetectionReport) -> GateError:
    """Return the error of a validated model that is not within the gate."""
    assert report.reference is not None
    problem = f"{report.artifact}: {_drops(figures_of(report))} against {report.reference.artifact}"
    return _error(problem, max_drop, verdict, "calibrate with `calibrate --max-drop`, more images or another --method")


def _drops(figures: Sequence[Figure]) -> str:
    said = [f"{f.name} drop {_drop(f.drop, f.drop_ci95)}" for f in figures if f.drop is not None and f.drop_ci95 is not None]
    return ", ".join(said)


def missed_gate(report: GateReport, name: str) -> GateError:
    """Return the error of a search that found no model within the gate, and wrote the best one as `name`."""
    verdict = Verdict(report.reached, report.reason, report.images_needed)
    problem = f"{name}: written, but its {_drops(report.best.shown)}"
    tried = any(step.fine_tuned for step in report.steps)
    remedy = "try another --method or more --samples" if tried else "try another --method, more --samples or --recover finetune"
    return _error(problem, report.max_drop, verdict, remedy)


def _drop(drop: float, limits: tuple[float, float]) -> str:
    return f"{fixed(drop)} points (95%: {interval(limits)})"


def _error(problem: str, max_drop: float, verdict: Verdict, otherwise: str) -> GateError:
    more = verdict.images_needed
    remedy = otherwise if more is None else f"validate on about {more:,} images, if the others are like these"
    problem = f"{problem} is not within --max-drop {max_drop:g}: {verdict.reason}"
    return GateError(problem, f"{remedy}, or give a larger --max-drop")
