"""The whole walk, checkpoint to report."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from emca_deploy._optional import import_optional
from emca_deploy._progress import Stage, silent
from emca_deploy.artifacts import Precision, Preprocessing, this_command, write_json, write_text
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.registry import get_builder
from emca_deploy.calibration.calibrate import Calibration, CalibrationOptions, calibrate_model
from emca_deploy.data.sources import ImageSource, Labels, open_source
from emca_deploy.errors import DataError, OutputError
from emca_deploy.export.checkpoint import CheckpointExport, ExportOptions, export_checkpoint
from emca_deploy.harness.accuracy import LogitsResult, collect_logits, compare
from emca_deploy.harness.latency import Protocol, measure
from emca_deploy.harness.latency_results import LatencyResult, ProfileReport
from emca_deploy.harness.results import DeployCandidate, DeployReport
from emca_deploy.harness.spec import RunnerSpec

__all__ = ["CPU_BACKENDS", "DeployOptions", "deploy"]

CPU_BACKENDS = ("onnxruntime", "openvino")
"""The backends that are built and compared on the CPU; the first at fp32 is the baseline."""

ENGINE_SUFFIX = {"onnxruntime": ".ort.onnx", "openvino": ".ov"}
MIB = 2**20


@dataclass(frozen=True)
class DeployOptions:
    """How to deploy.

    Attributes:
        export: architecture, class count, preprocessing, opset.
        backends: which to build and compare.
        samples: calibration images.
        threads: for every runtime.
        duration_s: measuring time for each candidate.
        limit: validation images; all where None.
    """

    export: ExportOptions = field(default_factory=ExportOptions)
    backends: Sequence[str] = CPU_BACKENDS
    samples: int = 300
    threads: int = 1
    duration_s: float = 5.0
    limit: int | None = None


@dataclass(frozen=True)
class _Engine:
    name: str
    backend: str
    precision: Precision
    path: Path

    def spec(self, threads: int) -> RunnerSpec:
        """Return the candidate; its idle threads sleep, so that it does not disturb the others."""
        arguments = {"backend": self.backend, "artifact": str(self.path), "threads": threads, "spin": False}
        return RunnerSpec(self.name, kwargs=arguments, artifact=str(self.path), backend=self.backend, precision=self.precision)


def deploy(
    checkpoint: Path | None, data: Path, validation: Path, output: Path, options: DeployOptions, stage: Stage = silent
) -> DeployReport:
    """Take a checkpoint to measured, verified INT8 engines; everything lands in the folder `output`.

    Args:
        checkpoint: as `export_checkpoint` takes it.
        data: calibration images.
        validation: labelled images, never used in calibration.
        output: a folder; made if it does not exist, its parent must.
        options: see there.
        stage: opens each stage, for progress.

    Returns:
        The report, also written as result.json and report.html.

    Raises:
        EmcaError: whatever stops a stage; files of finished stages stay, none is half-written.
    """
    import_optional("jinja2")  # the report comes last; a missing piece is said first
    for backend in options.backends:
        get_builder(backend)
    images = _open_images(data, validation, options.export.preprocessing)
    with _folder(output):
        return _walk(checkpoint, images, output, options, stage)


@dataclass(frozen=True)
class _Images:
    """The two data sets; the workers open the validation images themselves."""

    data: Path
    calibration: ImageSource
    validation: Path
    labels: Labels


def _open_images(data: Path, validation: Path, preprocessing: Preprocessing) -> _Images:
    calibration, labels = open_source(data, preprocessing), open_source(validation, preprocessing).labels
    if labels is None:
        raise DataError(
            f"{validation}: has no labels to validate against",
            "put its images into one subfolder per class, named as in training",
        )
    return _Images(data, calibration, validation, labels)


def _walk(checkpoint: Path | None, images: _Images, output: Path, options: DeployOptions, stage: Stage) -> DeployReport:
    started = time.monotonic()
    with stage("exporting"):
        exported = export_checkpoint(checkpoint, output / "model.onnx", options.export)
    if int(images.labels.max()) >= exported.num_classes:
        raise DataError(
            f"{images.validation}: has label {int(images.labels.max())}, but the model has {exported.num_classes} classes",
            "name a data set of the model's own classes, one subfolder per class",
        )
    calibration_started = time.monotonic()
    calibrations = _calibrate(exported, images.calibration, options, stage)
    calibration_seconds = time.monotonic() - calibration_started
    engines = _build(exported, calibrations, options, stage)
    with stage("measuring latency") as progress:
        specs = [engine.spec(options.threads) for engine in engines]
        profile = measure(specs, Protocol(duration_s=options.duration_s), progress)
    logits = _validate(engines, images.validation, options, stage)
    size = options.export.preprocessing.image_size
    report = DeployReport(
        title=f"{exported.arch}, {exported.num_classes} classes, {size}x{size}",
        baseline=engines[0].name,
        candidates=_candidates(engines, profile, logits),
        calibration={
            "data": str(images.data),
            "samples": calibrations[0].samples,
            "method": calibrations[0].method,
            "seconds": round(calibration_seconds, 2),
            "table": str(calibrations[0].table),
        },
        parity=exported.parity.to_dict(),
        environment=profile.environment,
        command=this_command(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
    )
    _write_report(report, output)
    return report


def _calibrate(exported: CheckpointExport, images: ImageSource, options: DeployOptions, stage: Stage) -> list[Calibration]:
    calibrations = []
    for backend in options.backends:
        wanted = CalibrationOptions(backend, samples=options.samples, threads=options.threads)
        target = exported.onnx.with_name(f"model.{backend}.int8.onnx")
        calibrations.append(calibrate_model(exported.onnx, images, target, wanted, _within(f"calibrating for {backend}", stage)))
    return calibrations


def _within(whole: str, stage: Stage) -> Stage:
    """Return what opens a part of a stage by the name of both."""
    return lambda part: stage(f"{whole}, {part}")


@contextmanager
def _folder(output: Path) -> Iterator[None]:
    """Make a folder where it is not there yet, and remove it again if nothing came to lie in it."""
    made = not output.exists()
    _make_folder(output)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # it is not empty
                output.rmdir()


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(exist_ok=True)
    except FileNotFoundError as exc:
        raise OutputError(f"{output}: its parent folder does not exist", f"make it first: mkdir -p {output.parent}") from exc
    except OSError as exc:
        raise OutputError(f"{output}: cannot be made: {exc.strerror}", "choose a folder you can write to") from exc


def _build(exported: CheckpointExport, calibrations: list[Calibration], options: DeployOptions, stage: Stage) -> list[_Engine]:
    """Build an fp32 and an INT8 engine for every backend, fp32 ones first."""
    sources: list[tuple[str, Precision, Path]] = [(backend, "fp32", exported.onnx) for backend in options.backends]
    sources += [(calibration.backend, "int8", calibration.onnx) for calibration in calibrations]
    engines = []
    with stage("building engines") as progress:
        for done, (backend, precision, model) in enumerate(sources):
            path = exported.onnx.parent / f"{backend}-{precision}{ENGINE_SUFFIX.get(backend, '.engine')}"
            get_builder(backend).build(model, path, RunOptions(threads=options.threads, batch=1))
            engines.append(_Engine(f"{backend} {precision}", backend, precision, path))
            if progress:
                progress(done + 1, len(sources))
    return engines


def _validate(engines: list[_Engine], validation: Path, options: DeployOptions, stage: Stage) -> list[LogitsResult]:
    results = []
    for engine in engines:
        with stage(f"validating {engine.name}") as progress:
            results.append(
                collect_logits(
                    engine.spec(options.threads),
                    validation,
                    options.export.preprocessing,
                    limit=options.limit,
                    batch_size=1,
                    progress=progress,
                )
            )
    return results


def _candidates(engines: list[_Engine], profile: ProfileReport, logits: list[LogitsResult]) -> tuple[DeployCandidate, ...]:
    reference, baseline = logits[0], profile.results[0]
    candidates = []
    for engine, latency, result in zip(engines, profile.results, logits, strict=True):
        accuracy = compare(engine.name, result.logits, result.labels, engines[0].name, reference.logits)
        candidates.append(
            DeployCandidate(
                name=engine.name,
                file_mib=engine.path.stat().st_size / MIB,
                latency=latency,
                accuracy=accuracy,
                speedup=baseline.latency_ms.p50 / latency.latency_ms.p50,
                speedup_ci95=_interval(profile, latency, engine),
            )
        )
    return tuple(candidates)


def _interval(profile: ProfileReport, latency: LatencyResult, engine: _Engine) -> tuple[float, float] | None:
    found: list[Any] = [c for c in profile.comparisons if c.a in {engine.name, latency.artifact}]
    return tuple(found[0].ratio_ci95) if found else None


def _write_report(report: DeployReport, output: Path) -> None:
    from emca_deploy.report.html import render_html

    write_json(output / "result.json", report.to_dict())
    write_text(output / "report.html", render_html(report))
