"""The details of one cell: its plots, figures, decisions, environment and provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emca_deploy.reporting.formats import NONE, facts, fixed, interval, moment, plain, significant
from emca_deploy.reporting.requirements import interval_text, needed_text, value_text
from emca_deploy.reporting.sweeps.plots import distribution_plot, time_plot
from emca_deploy.reporting.sweeps.words import OUTCOMES
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.figures import figures_of
from emca_deploy.results.latency import LatencyResult
from emca_deploy.results.sweep import CellResult
from emca_deploy.results.sweep_choice import CellVerdict
from emca_deploy.results.telemetry import TelemetryResult

__all__ = ["CellDetails", "Shared", "details_of", "shared_facts"]


@dataclass(frozen=True)
class Shared:
    """Facts about the machine that all finished cells have in common."""

    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class CellDetails:
    """A cell on the page.

    Attributes:
        outcome: Label of its outcome.
        plots: SVG elements of its latency.
        decisions: Requirement, value, interval, verdict, and what would decide, in words.
        sections: Title and facts of each part.
        warnings: Reasons to doubt its figures.
        error: Error of a failed cell, and what to do.
    """

    key: str
    name: str
    outcome: str
    plots: list[str]
    decisions: Sequence[tuple[str, ...]]
    sections: list[tuple[str, list[tuple[str, str]]]]
    warnings: list[str]
    error: tuple[str, str] | None


def shared_facts(cells: Sequence[CellResult]) -> Shared:
    """Return the facts that the environments of all finished cells have in common."""
    found = [facts(cell.environment) for cell in cells if cell.environment]
    if not found:
        return Shared([])
    common = set.intersection(*map(set, found))
    return Shared([pair for pair in found[0] if pair in common])


def details_of(name: str, cell: CellResult, verdict: CellVerdict, shared: Shared) -> CellDetails:
    """Return the details of a cell."""
    known = set(shared.pairs)
    own = [pair for pair in facts(cell.environment) if pair not in known]
    latency, plots, sections, warnings = cell.latency, [], [], []
    decided: list[tuple[str, ...]] = [
        (each.requirement, value_text(each), interval_text(each), each.verdict, needed_text(each)) for each in verdict.decisions
    ]
    decided += [(each.requirement, NONE, NONE, "undecided", plain(each.reason)) for each in verdict.unknown]
    if latency is not None:
        plots = [distribution_plot(f"calls-{cell.key}", latency), time_plot(f"time-{cell.key}", latency)]
        sections.append(("Latency", _latency(latency)))
        sections.append(("Power and temperature", _telemetry(latency.telemetry)))
        warnings = [plain(text) for text in (*latency.warnings, *latency.telemetry.warnings)]
    if cell.accuracy is not None:
        sections.insert(1, ("Accuracy", _accuracy(cell)))
        warnings += [plain(text) for text in cell.accuracy.warnings]
    sections += [("Environment of this cell", own), ("Provenance", _provenance(cell))]
    failure = cell.failure
    return CellDetails(
        cell.key,
        name,
        OUTCOMES[verdict.outcome],
        [plot for plot in plots if plot],
        decided,
        [(title, pairs) for title, pairs in sections if pairs],
        list(dict.fromkeys(warnings)),
        None if failure is None else (failure.error, failure.remedy),
    )


def _latency(result: LatencyResult) -> list[tuple[str, str]]:
    summary = result.latency_ms
    pairs = [
        ("p50, ms", f"{significant(summary.p50)} (95 %: {' to '.join(map(significant, summary.p50_ci95))})"),
        ("p90, p99, p99.9, ms", ", ".join(map(significant, (summary.p90, summary.p99, summary.p99_9)))),
        ("least, most, ms", f"{significant(summary.min)}, {significant(summary.max)}"),
        ("images/s", significant(result.throughput_images_per_s)),
        ("calls", f"{result.samples:,}"),
        ("loading, first call, ms", f"{significant(result.load_ms)}, {significant(result.first_inference_ms)}"),
        ("memory, MiB", fixed(result.peak_rss_mib, 0)),
    ]
    if result.protocol is not None:
        pairs.append(("end of the measurement", result.protocol.stop))
    return pairs + facts(result.runtime)


def _accuracy(cell: CellResult) -> list[tuple[str, str]]:
    report = cell.accuracy
    assert report is not None
    pairs = [("images", f"{report.samples:,}")]
    for figure in figures_of(report):
        pairs.append((f"{figure.name}, %", fixed(figure.value)))
        if figure.drop is not None:
            limits = f" (95 %: {interval(figure.drop_ci95)})" if figure.drop_ci95 is not None else ""
            pairs.append((f"drop of {figure.name}, points", f"{fixed(figure.drop)}{limits}"))
    if isinstance(report, AccuracyReport):
        pairs += _classes(report)
    return pairs


def _classes(report: AccuracyReport) -> list[tuple[str, str]]:
    pairs = [("top-5, %", fixed(report.top5))] if report.top5 is not None else []
    if report.ece is not None:
        pairs.append(("calibration error (ECE), %", fixed(report.ece)))
    if report.mean_confidence is not None:
        pairs.append(("mean confidence, %", fixed(report.mean_confidence)))
    if (reference := report.reference) is not None:
        pairs.append(("same class as the reference, %", fixed(reference.agreement)))
        if reference.sqnr_db is not None:
            pairs.append(("SQNR of the logits, dB", fixed(reference.sqnr_db, 1)))
        if (flips := reference.flips) is not None and flips.lost is not None and flips.won is not None:
            pairs.append(("images lost, gained", f"{flips.lost:,}, {flips.won:,}"))
    return pairs


def _telemetry(telemetry: TelemetryResult) -> list[tuple[str, str]]:
    pairs = []
    for source, found in telemetry.sources.items():
        for channel, power in found.power.items():
            energy = (
                "" if power.energy_per_inference_mj is None else f", {significant(power.energy_per_inference_mj)} mJ per image"
            )
            pairs.append((f"{source} {channel}, W", f"{significant(power.power_w)}{energy}"))
        pairs += [
            (f"{source} {name}", f"{significant(value.mean)} ({significant(value.min)} to {significant(value.max)})")
            for name, value in found.values.items()
        ]
    return pairs


def _provenance(cell: CellResult) -> list[tuple[str, str]]:
    record: dict[str, Any] = {
        "file": f"cells/{cell.key}.json",
        "artifact": cell.artifact or "none",
        "created": moment(cell.created),
        "seconds": cell.seconds,
    }
    return facts({**record, **_known(cell.inputs)})


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a cell that are stated, without its name."""
    found = {}
    for key, value in values.items():
        inner = _known(value) if isinstance(value, Mapping) else value
        if inner not in (None, "", {}, []) and key != "cell":
            found[key] = inner
    return found
