"""Reads result files for the history, and takes their figures out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emca_deploy._text import printable
from emca_deploy.history_store.store import StoredFigure, StoredResult, add_result
from emca_deploy.requirements.documents import MeasuredCandidate, MeasuredDocument, document_of, read_values
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.detection import DetectionReport
from emca_deploy.results.latency import LatencyResult
from emca_deploy.results.telemetry import total_power

__all__ = ["import_result"]

Value = tuple[str, float | None, tuple[float, float] | None]


def import_result(place: Path, store: Path) -> bool:
    """Add a result file, of this or an older schema version, to the history; False where it is there already.

    Raises:
        InputError: the file cannot be read, or is no result of `profile`, `validate` or `deploy`.
        OutputError: the history cannot be written.
        DataError: the history is damaged.
    """
    path, values = read_values(place)
    document = document_of(values, path)
    environment = next((each.run.report.environment for each in document.all if each.run is not None), {})
    parts = environment.get("fingerprint_parts")
    processor = parts.get("cpu") if isinstance(parts, dict) else None
    result = StoredResult(
        document.kind,
        document.created,
        *(printable(str(value or "")) for value in (environment.get("fingerprint"), processor, environment.get("emca_deploy"))),
    )
    figures = [figure for candidate in document.all for figure in _figures(document, candidate)]
    return add_result(store, document.key, result, figures, _with_samples(values, document))


def _with_samples(values: Any, document: MeasuredDocument) -> Any:
    """Return a document of `profile` with the samples of its other file, which the history does not keep."""
    if values.get("raw_samples") is None:
        return values
    runs = [each.run for each in document.all]
    samples = [[float(call) for block in run.calls(0) for call in block] for run in runs if run is not None]
    results = [{**result, "samples_ms": calls} for result, calls in zip(values["results"], samples, strict=True)]
    return {**{name: value for name, value in values.items() if name != "raw_samples"}, "results": results}


def _figures(document: MeasuredDocument, candidate: MeasuredCandidate) -> Iterator[StoredFigure]:
    latency, name = candidate.latency, document.label(candidate)
    of: tuple[str, str, str, str, int, str] = ("", "", "", "", 0, "")
    if latency is not None:
        runtime = str(latency.runtime.get("version") or "")
        backend, precision, target, runtime = map(printable, (latency.backend, latency.precision, latency.target, runtime))
        of = (backend, precision, target, latency.scenario, latency.batch, runtime)
    measured = [*(_of_latency(latency) if latency is not None else ()), *_of_accuracy(candidate)]
    if document.kind == "deploy":
        measured.append(("size", candidate.file_mib, None))
    yield from (StoredFigure(name, *of, figure, value, ci95) for figure, value, ci95 in measured if value is not None)


def _of_latency(result: LatencyResult) -> Iterator[Value]:
    latency = result.latency_ms
    yield "p50", latency.p50, latency.p50_ci95
    for figure, value in (("p90", latency.p90), ("p95", latency.p95), ("p99", latency.p99), ("p99.9", latency.p99_9)):
        yield figure, value, None
    yield "throughput", result.throughput_images_per_s, result.throughput_ci95
    power = next(iter(total_power(result.telemetry).values()), None)
    yield "energy", None if power is None else power.energy_per_inference_mj, None


def _of_accuracy(candidate: MeasuredCandidate) -> Iterator[Value]:
    report = candidate.accuracy
    if report is None or report.reference is None:
        yield "top1", report.top1 if isinstance(report, AccuracyReport) else None, None
    elif isinstance(report, DetectionReport):
        yield "drop", report.reference.box_ap_drop, report.reference.box_ap_drop_ci95
        yield "mask-drop", report.reference.mask_ap_drop, report.reference.mask_ap_drop_ci95
    else:
        yield "top1", report.top1, None
        yield "agreement", report.reference.agreement, None
        yield "drop", report.reference.top1_drop, report.reference.top1_drop_ci95
