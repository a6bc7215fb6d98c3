"""The whole walk, checkpoint to report."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from emca_deploy._optional import import_optional
from emca_deploy._progress import Stage, silent
from emca_deploy._text import shell_word
from emca_deploy.artifacts import this_command, write_json, write_text
from emca_deploy.calibration.calibrate import Calibration, CalibrationOptions, calibrate_model
from emca_deploy.data.image_checks import image_digests
from emca_deploy.data.sources import ImageSource, open_source
from emca_deploy.data.subset import choose_indices
from emca_deploy.errors import DataError, OutputError
from emca_deploy.exporting.checkpoint import CheckpointExport, ExportOptions, export_checkpoint
from emca_deploy.harness.accuracy.evaluate import LogitsResult, collect_logits, compare
from emca_deploy.harness.accuracy.labelled import LabelledImages
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.harness.measure.protocol import FEWEST_PROCESSES
from emca_deploy.pipeline.places import Candidate, Models, Place, distinct, find_places
from emca_deploy.preprocessing import Labelling
from emca_deploy.results.codec import to_json
from emca_deploy.results.deploy import DeployCandidate, DeployReport
from emca_deploy.results.latency import ProfileReport

__all__ = ["DeployOptions", "deploy"]

MIB = 2**20


@dataclass(frozen=True)
class DeployOptions:
    """How to deploy.

    Attributes:
        export: architecture, class count, preprocessing, opset.
        targets: where to measure: "cpu", "gpu", "gpu:1". The first has the baseline.
        backends: which to build and compare; none means all that run on a target.
        samples: calibration images.
        threads: for every runtime.
        duration_s: measuring time for each candidate.
        limit: validation images; all where None.
        recover: what calibration does for accuracy besides: a name of `calibration.recovery.LEVELS`.
        labelling: what the user says about the labels of the validation images.
    """

    export: ExportOptions = field(default_factory=ExportOptions)
    targets: Sequence[str] = ("cpu",)
    backends: Sequence[str] = ()
    samples: int = 300
    threads: int = 1
    duration_s: float = 5.0
    limit: int | None = None
    recover: str = "weights"
    labelling: Labelling = field(default_factory=Labelling)


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
    places = find_places(options.targets, options.backends)
    images = _open_images(data, validation, options)
    with _folder(output):
        return _Walk(places, options, stage).take(checkpoint, images, output)


@dataclass(frozen=True)
class _Images:
    """The two data sets; the workers open the validation images themselves."""

    data: Path
    calibration: ImageSource
    validation: Path
    labelled: LabelledImages


def _open_images(data: Path, validation: Path, options: DeployOptions) -> _Images:
    preprocessing = options.export.preprocessing
    labelled = LabelledImages(open_source(validation, preprocessing, options.labelling))
    if labelled.found is None:
        raise DataError(
            f"{validation}: has no labels to validate against",
            "put its images into one subfolder per class, named as in training, or give --labels FILE",
        )
    return _Images(data, open_source(data, preprocessing), validation, labelled)


@dataclass(frozen=True)
class _Walk:
    """A deployment under way."""

    places: tuple[Place, ...]
    options: DeployOptions
    stage: Stage

    def take(self, checkpoint: Path | None, images: _Images, output: Path) -> DeployReport:
        """Export, calibrate, build, measure, validate and report."""
        started = time.monotonic()
        exported, half = self._export(checkpoint, output, images)
        calibration_started = time.monotonic()
        calibrations = self._calibrate(exported, images.calibration)
        calibration_seconds = time.monotonic() - calibration_started
        int8 = {calibration.backend: calibration.onnx for calibration in calibrations}
        used = self.options.export.preprocessing
        chosen = {"weights": self.options.export.weights, "prefix": self.options.export.prefix}
        candidates = self._build(Models(checkpoint, exported.onnx, half, int8, used.image_size, chosen))
        profile = self._measure(candidates)
        logits = self._validate(candidates, images)
        report = DeployReport(
            title=f"{exported.arch}, {exported.num_classes} classes, {used.height}x{used.width}",
            baseline=candidates[0].name,
            candidates=_candidates(candidates, profile, logits),
            calibration=_calibration_record(images.data, calibrations, calibration_seconds),
            parity=exported.parity.to_dict(),
            environment=profile.environment,
            command=this_command(),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 1),
            checkpoint=exported.source.to_dict() if exported.source else None,
            warnings=tuple(dict.fromkeys((*(w for made in calibrations for w in made.warnings), *images.labelled.warnings))),
        )
        _write_report(report, output)
        return report

    def _export(self, checkpoint: Path | None, output: Path, images: _Images) -> tuple[CheckpointExport, Path | None]:
        """Return the fp32 model, and the fp16 one where a place needs it."""
        with self.stage("exporting"):
            exported = export_checkpoint(checkpoint, output / "model.onnx", self.options.export)
        images.labelled.check(str(exported.onnx), exported.num_classes)
        if not any(place.needs_half for place in self.places):
            return exported, None
        with self.stage("exporting fp16"):
            half = replace(self.options.export, precision="fp16")
            return exported, export_checkpoint(checkpoint, output / "model.fp16.onnx", half).onnx

    def _calibrate(self, exported: CheckpointExport, images: ImageSource) -> list[Calibration]:
        """Return an INT8 model for every placement that a place needs."""
        calibrations = []
        for backend in dict.fromkeys(backend for place in self.places for backend in place.placements):
            wanted = CalibrationOptions(
                backend, samples=self.options.samples, threads=self.options.threads, recover=self.options.recover
            )
            target = exported.onnx.with_name(f"model.{backend}.int8.onnx")
            within = _within(f"calibrating for {backend}", self.stage)
            calibrations.append(calibrate_model(exported.onnx, images, target, wanted, within))
        return calibrations

    def _build(self, models: Models) -> tuple[Candidate, ...]:
        steps = [step for place in self.places for step in place.steps(models, self.options.threads)]
        found: list[Candidate] = []
        with self.stage("building engines") as progress:
            for done, step in enumerate(steps):
                found += step()
                if progress:
                    progress(done + 1, len(steps))
        return distinct(found)

    def _measure(self, candidates: Sequence[Candidate]) -> ProfileReport:
        specs = [candidate.spec for candidate in candidates]
        with self.stage("measuring latency") as progress, ExitStack() as stack:
            records = [stack.enter_context(place.record()) for place in self.places]
            processes = FEWEST_PROCESSES if set(self.options.targets) == {"cpu"} else 1  # loading takes too long elsewhere
            protocol = Protocol(duration_s=self.options.duration_s, processes=processes, load_together=processes == 1)
            profile = measure(specs, protocol, progress)
        environment = dict(profile.environment)
        for place, record in zip(self.places, records, strict=True):
            for name, facts in record.items():  # a second GPU's are found under its target
                environment[place.target if name in environment else name] = facts
        profile = replace(profile, environment=environment)
        for place, record in zip(self.places, records, strict=True):
            profile = place.annotate(profile, record)
        return profile

    def _validate(self, candidates: Sequence[Candidate], images: _Images) -> list[LogitsResult]:
        results = []
        for candidate in candidates:
            with self.stage(f"validating {candidate.name}") as progress:
                results.append(
                    collect_logits(
                        candidate.spec,
                        images.validation,
                        self.options.export.preprocessing,
                        limit=self.options.limit,
                        batch_size=1,
                        progress=progress,
                    )
                )
        chosen = choose_indices(len(images.calibration), self.options.samples, images.calibration.labels)
        images.labelled.check_overlap(image_digests(images.calibration, chosen), results[0])
        return [images.labelled.settle(result, results[0].logits) for result in results]


def _calibration_record(data: Path, calibrations: Sequence[Calibration], seconds: float) -> dict[str, Any]:
    """Return what the report says of the calibration; without any INT8, that there was none."""
    if not calibrations:
        return {"data": str(data), "samples": 0, "method": "none", "seconds": 0.0, "table": ""}
    first = calibrations[0]
    return {
        "data": str(data),
        "samples": first.samples,
        "method": first.method,
        "seconds": round(seconds, 2),
        "table": str(first.table),
    }


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
        raise OutputError(
            f"{output}: its parent folder does not exist", f"make it first: mkdir -p {shell_word(str(output.parent))}"
        ) from exc
    except OSError as exc:
        raise OutputError(f"{output}: cannot be made: {exc.strerror}", "choose a folder you can write to") from exc


def _candidates(
    candidates: Sequence[Candidate], profile: ProfileReport, logits: list[LogitsResult]
) -> tuple[DeployCandidate, ...]:
    """Return what was found of each candidate, held against the first."""
    reference, baseline = logits[0], profile.results[0]
    intervals = {comparison.a: comparison.ratio_ci95 for comparison in profile.comparisons}
    found = []
    for candidate, latency, result in zip(candidates, profile.results, logits, strict=True):
        accuracy = compare(candidate.name, result.logits, result.labels, candidates[0].name, reference.logits)
        found.append(
            DeployCandidate(
                name=candidate.name,
                file_mib=candidate.path.stat().st_size / MIB,
                latency=latency,
                accuracy=accuracy,
                speedup=baseline.latency_ms.p50 / latency.latency_ms.p50,
                speedup_ci95=intervals.get(candidate.name),
            )
        )
    return tuple(found)


def _write_report(report: DeployReport, output: Path) -> None:
    from emca_deploy.reporting.html import render_html

    write_json(output / "result.json", to_json(report))
    write_text(output / "report.html", render_html(report))
