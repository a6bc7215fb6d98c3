"""The details of one cell or candidate: its plots, layers, pictures, figures, decisions, environment and provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emca_deploy.reporting.details.accuracy import FlipCard, flip_cards, flips_words, reliability_plot
from emca_deploy.reporting.details.found import Found
from emca_deploy.reporting.details.latency import Zoom, distribution_plot, time_plot, zoom_of
from emca_deploy.reporting.details.telemetry import readings_over_time, readings_plot, readings_zoom
from emca_deploy.reporting.formats import NONE, facts, fixed, interval, moment, plain, significant, upper
from emca_deploy.reporting.layers import HEADINGS, layer_lines, layer_rows
from emca_deploy.reporting.requirements import interval_text, needed_text, value_text
from emca_deploy.reporting.sensitivity import sensitivity_chart
from emca_deploy.reporting.sweeps.words import OUTCOMES
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.figures import figures_of
from emca_deploy.results.latency import LatencyResult
from emca_deploy.results.layers import ArtifactLayers
from emca_deploy.results.load import LatencySummary
from emca_deploy.results.sweep import CellResult
from emca_deploy.results.sweep_choice import CellVerdict
from emca_deploy.results.telemetry import TelemetryResult

__all__ = ["CellDetails", "Drawing", "LayersTable", "Shared", "details_of", "numbers_of_each", "shared_facts"]

_LAYERS, _UNITS = 12, 12
_NUMBERS, _FEWEST = 100_000, 300
"""Most numbers of all plots to zoom into on a page, and fewest of one plot."""


@dataclass(frozen=True)
class Shared:
    """Facts about the machine that all finished cells have in common."""

    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Drawing:
    """An SVG element with its caption, and its numbers where zooming helps."""

    element: str
    caption: str
    zoom: Zoom | None = None


@dataclass(frozen=True)
class LayersTable:
    """The slowest layers, in execution order, and sentences about all of them."""

    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    lines: list[str]


@dataclass(frozen=True)
class CellDetails:
    """A cell or candidate on the page.

    Attributes:
        anchor: Name of its element, unique on the page.
        outcome: Label of its outcome; "" without one.
        drawings: Plots of its latency, confidence and sensitivity.
        layers: Its slowest layers; None where they were not measured.
        flips: Number of images whose class differs, in words; "" where it is unknown.
        cards: Pictures of some of them.
        decisions: Requirement, value, interval, verdict, and what would decide, in words.
        sections: Title and facts of each part.
        warnings: Reasons to doubt its figures.
        error: Error of a failed cell, and what to do.
    """

    anchor: str
    name: str
    outcome: str
    drawings: list[Drawing]
    layers: LayersTable | None
    flips: str
    cards: list[FlipCard]
    decisions: Sequence[tuple[str, ...]]
    sections: list[tuple[str, list[tuple[str, str]]]]
    warnings: list[str]
    error: tuple[str, str] | None


def numbers_of_each(cells: int) -> int:
    """Return the most numbers of one plot to zoom into, on a page with this number of cells."""
    return max(_NUMBERS // max(cells, 1), _FEWEST)


def shared_facts(cells: Sequence[CellResult]) -> Shared:
    """Return the facts that the environments of all finished cells have in common."""
    found = [facts(cell.environment) for cell in cells if cell.environment]
    if not found:
        return Shared([])
    common = set.intersection(*map(set, found))
    return Shared([pair for pair in found[0] if pair in common])


def details_of(
    anchor: str, name: str, cell: CellResult, verdict: CellVerdict | None, shared: Shared, found: Found, numbers: int
) -> CellDetails:
    """Return the details of a cell; a plot has about `numbers` numbers to zoom into."""
    warnings = () if cell.latency is None else (*cell.latency.warnings, *cell.latency.telemetry.warnings)
    warnings += () if cell.accuracy is None else cell.accuracy.warnings
    measured = found.layers.get(cell.key)
    flips, cards = _flips(cell, found)
    return CellDetails(
        anchor=anchor,
        name=name,
        outcome="" if verdict is None else OUTCOMES[verdict.outcome],
        drawings=_drawings(anchor, cell, found, numbers),
        layers=None if measured is None else _layers(measured),
        flips=flips,
        cards=cards,
        decisions=[] if verdict is None else _decisions(verdict),
        sections=[(title, pairs) for title, pairs in _sections(cell, shared, found) if pairs],
        warnings=list(dict.fromkeys(map(plain, warnings))),
        error=None if cell.failure is None else (cell.failure.error, cell.failure.remedy),
    )


def _drawings(anchor: str, cell: CellResult, found: Found, numbers: int) -> list[Drawing]:
    drawings = []
    if cell.latency is not None:
        drawings.append(Drawing(distribution_plot(f"calls-{anchor}", cell.latency), _DISTRIBUTION))
        drawings.append(Drawing(time_plot(f"time-{anchor}", cell.latency), _TIME, zoom_of(cell.latency.samples_ms, numbers)))
        for index, (title, readings) in enumerate(readings_over_time(cell.latency.telemetry)):
            plot = readings_plot(f"telemetry-{index}-{anchor}", title, readings)
            drawings.append(Drawing(plot, f"{plain(title)}, while it ran.", readings_zoom(readings, numbers)))
    if isinstance(cell.accuracy, AccuracyReport):
        drawings.append(Drawing(reliability_plot(f"reliability-{anchor}", cell.accuracy), _RELIABILITY))
    if (units := found.sensitivity.get(cell.key)) is not None:
        kind = "block" if any(each.kind == "block" for each in units.units) else "layer"
        drawings.append(Drawing(sensitivity_chart(f"sensitivity-{anchor}", units, kind, _UNITS), _SENSITIVITY.format(kind)))
    return [each for each in drawings if each.element]


_DISTRIBUTION = "How long the calls took. Solid line: median. Dashed line: p99."
_TIME = "Milliseconds of the calls in order: median and range of neighbouring calls. Dashed line: another process."
_RELIABILITY = (
    "How many predictions are right, by the model's confidence; larger marks have more images. Dashed: exactly as confident."
)
_SENSITIVITY = "For each {}: the share of the INT8 error that leaving it in float removes, and the share that it makes alone."


def _layers(measured: ArtifactLayers) -> LayersTable:
    rows, rest, share = layer_rows(measured, _LAYERS)
    more = [f"{rest} shorter layers take {fixed(share, 1)} %."] if rest else []
    return LayersTable(HEADINGS, [cells for cells, _ in rows], [*more, *map(plain, layer_lines(measured))])


def _flips(cell: CellResult, found: Found) -> tuple[str, list[FlipCard]]:
    report = cell.accuracy
    if not isinstance(report, AccuracyReport) or report.reference is None or report.reference.flips is None:
        return "", []
    flips = report.reference.flips
    names = dict(enumerate(found.classes)) or {each.label: each.name for each in report.per_class or ()}
    return (flips_words(flips), flip_cards(flips, found.pictures, names)) if flips.total else ("", [])


def _decisions(verdict: CellVerdict) -> list[tuple[str, ...]]:
    decided: list[tuple[str, ...]] = [
        (each.requirement, value_text(each), interval_text(each), each.verdict, needed_text(each)) for each in verdict.decisions
    ]
    return decided + [(each.requirement, NONE, NONE, "undecided", plain(each.reason)) for each in verdict.unknown]


def _sections(cell: CellResult, shared: Shared, found: Found) -> list[tuple[str, list[tuple[str, str]]]]:
    known, sections = set(shared.pairs), []
    if cell.latency is not None:
        sections.append(("Latency", _latency(cell.latency)))
    if cell.accuracy is not None:
        sections.append(("Accuracy", _accuracy(cell)))
    if cell.latency is not None:
        sections.append(("Power and temperature", _telemetry(cell.latency.telemetry)))
    own = [pair for pair in facts(cell.environment) if pair not in known]
    return [*sections, ("Environment", own), ("Provenance", _provenance(cell, found))]


def _latency(result: LatencyResult) -> list[tuple[str, str]]:
    summary = result.latency_ms
    pairs = [
        ("p50, ms", f"{significant(summary.p50)} (95 %: {' to '.join(map(significant, summary.p50_ci95))})"),
        *_percentiles(summary),
        ("least, most, ms", f"{significant(summary.min)}, {significant(summary.max)}"),
        ("images/s", significant(result.throughput_images_per_s)),
        ("calls", f"{result.samples:,}"),
        ("loading, first call, ms", f"{significant(result.load_ms)}, {significant(result.first_inference_ms)}"),
        ("memory, MiB", fixed(result.peak_rss_mib, 0)),
    ]
    if result.protocol is not None:
        pairs.append(("end of the measurement", result.protocol.stop))
    return pairs + facts(result.runtime)


def _percentiles(summary: LatencySummary) -> list[tuple[str, str]]:
    """Return p90, p99 and p99.9 with their upper bounds of 95 % confidence."""
    found = {
        "p90": (summary.p90, summary.p90_upper95),
        "p99": (summary.p99, summary.p99_upper95),
        "p99.9": (summary.p99_9, summary.p99_9_upper95),
    }
    return [(f"{name}, ms", f"{significant(value)} (95 %: {upper(bound)})") for name, (value, bound) in found.items()]


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


def _provenance(cell: CellResult, found: Found) -> list[tuple[str, str]]:
    record: dict[str, Any] = {"artifact": cell.artifact or "none", **_known(found.files.get(cell.key, {}))}
    if cell.inputs:  # a cell of a sweep has a file of its own
        record |= {"file": f"cells/{cell.key}.json", "created": moment(cell.created), "seconds": cell.seconds}
    return facts({**record, **_known(cell.inputs)})


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are stated, without the name of a cell."""
    found = {}
    for key, value in values.items():
        inner = _known(value) if isinstance(value, Mapping) else value
        if inner not in (None, "", {}, []) and key != "cell":
            found[key] = inner
    return found
