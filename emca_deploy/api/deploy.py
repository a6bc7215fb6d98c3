"""`deploy`: from a checkpoint to measured INT8 engines and a report."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emca_deploy._machine import default_threads
from emca_deploy._optional import import_optional
from emca_deploy._progress import Stage, silent
from emca_deploy.api.names import FINETUNE_BUDGET_S
from emca_deploy.api.parts import find_parts, measure_parts
from emca_deploy.api.report import deployment_page
from emca_deploy.api.teacher import load_teacher
from emca_deploy.artifacts import this_command, write_json, write_text
from emca_deploy.atomic import make_folder
from emca_deploy.backends.registry import all_recipes, find_recipe
from emca_deploy.backends.tensorrt.operators import WITHOUT_ROI_ALIGN
from emca_deploy.calibration.calibrate import Calibration, calibrate_model
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.calibration.ranges.drawing import Samples, possible_images
from emca_deploy.calibration.recovery.weights import FINETUNE
from emca_deploy.data.choosing import assumed_note, network_preprocessing
from emca_deploy.data.decoded import room_for_decoded
from emca_deploy.data.image_checks import image_digests
from emca_deploy.data.sources import ImageSource, open_source
from emca_deploy.errors import InputError
from emca_deploy.exporting.checkpoint import CheckpointExport, ExportOptions, export_checkpoint
from emca_deploy.exporting.detectors import detector_preprocessing
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.harness.accuracy.evaluation import Evaluation, Report, Wishes
from emca_deploy.harness.accuracy.evaluations import EVALUATIONS
from emca_deploy.harness.accuracy.pictures import pictures_of
from emca_deploy.preprocessing import Labelling, Preprocessing, PreprocessingOptions
from emca_deploy.requests import LogitsRequest, TaskName
from emca_deploy.results.codec import to_json
from emca_deploy.results.deploy import DeployCandidate, DeployReport
from emca_deploy.results.latency import ProfileReport
from emca_deploy.targets.base import Part, Shared
from emca_deploy.targets.deployment import BuiltCandidate, Models, named_apart
from emca_deploy.tasks.registry import TASKS

if TYPE_CHECKING:
    from emca_deploy.networks.checkpoints import ModelSpec, Weights

__all__ = ["DeployRequest", "deploy", "deploy_notes"]


@dataclass(frozen=True)
class DeployRequest:
    """Options of a deployment.

    Attributes:
        checkpoint: .pth, .pt, .pth.tar, .ckpt, .safetensors or the .index.json of shards.
        data: calibration images: a folder, a zip or an npz file.
        validation: labelled images, none of them used in calibration.
        output: folder for everything that is made; its parent must exist.
        arch: architecture; None infers it from the checkpoint.
        weights: weights of the checkpoint to use: "ema" or "plain"; None takes the moving average if there is one.
        prefix: prefix of the network's tensor names, if the checkpoint holds several networks.
        targets: targets to measure on: "cpu", "gpu", "gpu:1", "jetson", "ssh://host". The first has the baseline.
        backends: backends to build for; none means all that run on a target.
        preprocessing: the preprocessing, or known facts about it.
        labelling: known facts about the labels of the validation images.
        samples: number of calibration images, or "auto" for as many as the ranges need.
        recover: accuracy recovery: "none", "bias", "weights" or "finetune".
        limit: number of validation images; None uses all.
        threads: threads of each runtime; None is one per physical core.
        duration_s: measuring time of each candidate in seconds.
        finetune_budget_s: most seconds of fine-tuning for each backend.
        annotations: objects in COCO's JSON format, for a detector; `validation` has their images.
    """

    checkpoint: Path
    data: Path
    validation: Path
    output: Path
    arch: str | None = None
    weights: "Weights | None" = None
    prefix: str | None = None
    targets: tuple[str, ...] = ("cpu",)
    backends: tuple[str, ...] = ()
    preprocessing: PreprocessingOptions | Preprocessing = field(default_factory=PreprocessingOptions)
    labelling: Labelling = field(default_factory=Labelling)
    samples: Samples = 300
    recover: str = "weights"
    limit: int | None = None
    threads: int | None = None
    duration_s: float = 5.0
    finetune_budget_s: float = FINETUNE_BUDGET_S
    annotations: Path | None = None

    @property
    def task(self) -> TaskName:
        """The task of the network: detection where there are annotations."""
        return "classification" if self.annotations is None else "detection"

    @property
    def known_preprocessing(self) -> PreprocessingOptions | Preprocessing:
        """The preprocessing, or known facts about it; a detector's has other defaults than a classifier's."""
        said = self.preprocessing
        return said if self.annotations is None else detector_preprocessing(said, None)


def deploy_notes(request: DeployRequest) -> tuple[str, ...]:
    """Return notes on a deployment: what is assumed about the preprocessing.

    Raises:
        InputError: a value of the preprocessing is wrong.
    """
    note = assumed_note(str(request.checkpoint), network_preprocessing(request.known_preprocessing))
    return () if note is None else (note,)


def deploy(request: DeployRequest, stage: Stage = silent) -> DeployReport:
    """Take a checkpoint to measured, verified INT8 engines; everything is written into one folder.

    Returns:
        The report, also written as result.json and report.html.

    Raises:
        EmcaError: a stage failed; the files of finished stages stay, none is half-written.
    """
    preprocessing = network_preprocessing(request.known_preprocessing)
    import_optional("jinja2")  # a missing library of the report is reported before the work
    parts = find_parts(request.targets, request.backends)
    if not TASKS[request.task].has_logits:  # PyTorch runs classifiers only
        parts = tuple(replace(part, deployment=part.deployment.without_checkpoints()) for part in parts)
    wishes = Wishes(
        "", request.validation, annotations=request.annotations, labelling=request.labelling, needs_truth=True
    )  # fmt: skip
    images = EVALUATIONS[request.task](wishes)
    images.open(preprocessing, None)
    calibration = open_source(request.data, preprocessing)
    with _folder(request.output):
        return _Walk(request, parts, preprocessing, calibration, images, stage).take()


@dataclass(frozen=True)
class _Walk:
    """A deployment in progress."""

    request: DeployRequest
    parts: tuple[Part, ...]
    preprocessing: Preprocessing
    calibration: ImageSource
    images: Evaluation
    stage: Stage

    def take(self) -> DeployReport:
        """Export, calibrate, build, measure, validate and report."""
        started = time.monotonic()
        exported, half = self._export()
        return replace(self, **self._reopened(exported.preprocessing))._deploy(exported, half, started)

    def _deploy(self, exported: CheckpointExport, half: Path | None, started: float) -> DeployReport:
        request, used = self.request, self.preprocessing
        calibration_started = time.monotonic()
        calibrations = self._calibrate(exported)
        calibration_seconds = time.monotonic() - calibration_started
        int8 = {calibration.recipe.backend: calibration.onnx for calibration in calibrations}
        chosen = {"weights": request.weights, "prefix": request.prefix}
        parts = self._build(Models(request.checkpoint, exported.onnx, half, int8, used.image_size, chosen))
        candidates = [candidate for part in parts for candidate in part.candidates]
        profile, results = self._measure(parts)
        accuracies = self.images.compare_all(results, self.stage)
        report = DeployReport(
            title=f"{exported.arch}, {exported.num_classes} classes, {used.height}x{used.width}",
            baseline=candidates[0].name,
            candidates=_candidates(candidates, profile, accuracies),
            calibration=_calibration_record(request.data, calibrations, calibration_seconds),
            parity=to_json(exported.parity),
            environment=profile.environment,
            command=this_command(),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 1),
            checkpoint=to_json(exported.source) if exported.source else None,
            warnings=tuple(dict.fromkeys((*(w for made in calibrations for w in made.warnings), *self.images.warnings))),
            pictures=pictures_of(self.images.source, accuracies),
            classes=tuple(self.images.classes),
        )
        write_json(request.output / "result.json", to_json(report))
        write_text(request.output / "report.html", deployment_page(report, request.output))
        return report

    def _export(self) -> tuple[CheckpointExport, Path | None]:
        """Return the fp32 model, and the fp16 model if a target needs it."""
        request = self.request
        said = self.preprocessing if request.task == "classification" else request.preprocessing
        options = ExportOptions(
            arch=request.arch,
            preprocessing=said,
            weights=request.weights,
            prefix=request.prefix,
            prefer_grid=self._builds_with(WITHOUT_ROI_ALIGN),
        )
        with self.stage("exporting"):
            exported = export_checkpoint(request.checkpoint, request.output / "model.onnx", options, loaded=self._check_task)
        self.images.check(str(exported.onnx), exported.num_classes)
        if not any(part.deployment.needs_half for part in self.parts):
            return exported, None
        with self.stage("exporting fp16"):
            half = replace(options, precision="fp16")
            return exported, export_checkpoint(request.checkpoint, request.output / "model.fp16.onnx", half).onnx

    def _check_task(self, spec: "ModelSpec") -> None:
        """Refuse a detector without annotations, and annotations for a classifier, before the export."""
        checkpoint, annotations = self.request.checkpoint, self.request.annotations
        if spec.detector is not None and annotations is None:
            raise InputError(
                f"{checkpoint}: is a detector ({spec.arch})", "give --annotations FILE, the objects of --val's images"
            )
        if spec.detector is None and annotations is not None:
            raise InputError(f"{checkpoint}: is a classifier ({spec.arch})", "leave --annotations out, or name a detector")
        if self.request.recover == FINETUNE:
            spec.check_classifier(checkpoint, "fine-tuning", "choose another --recover")
        adaptive = spec.detector is not None and spec.detector.roi_sampling_ratio == 0
        if adaptive and not spec.arch.startswith("retinanet") and self._builds_with(WITHOUT_ROI_ALIGN):
            raise InputError(
                f"{checkpoint}: {WITHOUT_ROI_ALIGN} has no RoiAlign with an adaptive number of samples (sampling ratio 0)",
                "leave this backend out: name the others with --backend",
            )

    def _builds_with(self, backend: str) -> bool:
        """Return whether any candidate is built for a backend."""
        return any(step.backend == backend for part in self.parts for step in part.deployment.steps)

    def _reopened(self, used: Preprocessing) -> dict[str, Any]:
        """Return what changes where the checkpoint has a preprocessing of its own."""
        if used == self.preprocessing:
            return {}
        self.images.open(used, None)
        return {"preprocessing": used, "calibration": open_source(self.request.data, used)}

    def _calibrate(self, exported: CheckpointExport) -> list[Calibration]:
        """Return an INT8 model for every backend that needs one."""
        calibrations, threads = [], self.request.threads or default_threads()
        teaching = None
        if self.request.recover == FINETUNE:
            teaching = load_teacher(self.request.checkpoint, exported.onnx, self.request.finetune_budget_s)
        for backend in dict.fromkeys(backend for part in self.parts for backend in part.deployment.int8_backends):
            samples, recover = self.request.samples, self.request.recover
            wanted = CalibrationOptions(
                find_recipe(backend), all_recipes(), threads, fine_tuning=teaching, samples=samples, recover=recover
            )
            target = exported.onnx.with_name(f"model.{backend}.int8.onnx")
            within = _within(f"calibrating for {backend}", self.stage)
            calibrations.append(calibrate_model(exported.onnx, self.calibration, target, wanted, within))
        return calibrations

    def _build(self, models: Models) -> tuple[Part, ...]:
        steps = [(index, step) for index, part in enumerate(self.parts) for step in part.deployment.steps]
        found: list[tuple[int, BuiltCandidate]] = []
        with self.stage("building engines") as progress:
            for done, (index, step) in enumerate(steps):
                built = self.parts[index].target.build_step(step, models, self.request.threads)
                found += [(index, candidate) for candidate in built]
                if progress:
                    progress(done + 1, len(steps))
        apart = list(zip((index for index, _ in found), named_apart([candidate for _, candidate in found]), strict=True))
        return tuple(
            replace(part, candidates=tuple(candidate for owner, candidate in apart if owner == index))
            for index, part in enumerate(self.parts)
        )

    def _measure(self, parts: Sequence[Part]) -> tuple[ProfileReport, dict[str, LogitsResult]]:
        """Measure the latencies of all candidates, and then their answers in the same processes."""
        source = self.images.source
        count = min(self.request.limit or len(source), len(source))
        with ExitStack() as stack, room_for_decoded(self.request.output, count, self.preprocessing) as decoded:
            shared = Shared(stack, decoded=decoded)
            with self.stage("measuring latency") as progress:
                profile = measure_parts(parts, self.request.duration_s, progress, shared)
            return profile, self._validate(parts, shared)

    def _validate(self, parts: Sequence[Part], shared: Shared) -> dict[str, LogitsResult]:
        request = LogitsRequest(
            "",
            str(self.request.validation),
            preprocessing=self.preprocessing,
            limit=self.request.limit,
            batch=1,
            untuned=True,
            task=self.request.task,
            images=self.images.images,
        )
        results = {}
        for part in parts:
            for candidate in part.candidates:
                with self.stage(f"validating {candidate.name}") as progress:
                    results[candidate.name] = part.target.logits(candidate, request, progress, shared)
        chosen = possible_images(self.calibration, self.request.samples)
        self.images.check_overlap(image_digests(self.calibration, chosen), next(iter(results.values())))
        return results


def _calibration_record(data: Path, calibrations: Sequence[Calibration], seconds: float) -> dict[str, Any]:
    """Return the calibration in the report's JSON, which has no samples if nothing was calibrated."""
    if not calibrations:
        return {"data": str(data), "samples": 0, "method": "none", "seconds": 0.0, "table": ""}
    first, seconds = calibrations[0], round(seconds, 2)
    drawing = {"drawing": to_json(first.drawing)} if first.drawing else {}
    made = {"samples": first.samples, **drawing, "method": first.method, "seconds": seconds, "table": str(first.table)}
    return {"data": str(data), **made}


def _within(whole: str, stage: Stage) -> Stage:
    return lambda part: stage(f"{whole}, {part}")


@contextmanager
def _folder(output: Path) -> Iterator[None]:
    """Make a folder if it does not exist, and remove it again if it stays empty."""
    made = not output.exists()
    make_folder(output)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # it is not empty
                output.rmdir()


def _candidates(
    candidates: Sequence[BuiltCandidate], profile: ProfileReport, accuracies: Sequence[Report]
) -> tuple[DeployCandidate, ...]:
    """Return the results of each candidate, compared with the first."""
    baseline = profile.results[0]
    intervals = {comparison.a: comparison.ratio_ci95 for comparison in profile.comparisons}
    found = []
    for candidate, latency, accuracy in zip(candidates, profile.results, accuracies, strict=True):
        file_mib, speedup = candidate.path.stat().st_size / 2**20, baseline.latency_ms.p50 / latency.latency_ms.p50
        found.append(DeployCandidate(candidate.name, file_mib, latency, accuracy, speedup, intervals.get(candidate.name)))
    return tuple(found)
