"""`validate`: the accuracy of an artifact, and its drop against a reference on the same images."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Protocol

from emca_deploy._progress import Progress, Stage, silent
from emca_deploy.api.checking.corruptions import Corruptions, Side
from emca_deploy.api.checking.explain import Explaining
from emca_deploy.api.images import image_notes, image_warnings
from emca_deploy.artifacts import TensorSpec, manifest_path, read_manifest, write_json
from emca_deploy.backends.records import DEFAULT
from emca_deploy.backends.registry import CHECKPOINTS
from emca_deploy.data.choosing import InputFacts, file_facts, preprocessing_of_file
from emca_deploy.errors import InputError, OutputError
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.harness.accuracy.evaluation import Measured, Report, Wishes
from emca_deploy.harness.accuracy.evaluations import EVALUATIONS
from emca_deploy.harness.accuracy.logits_store import partial_path
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import Labelling, Preprocessing, PreprocessingOptions, model_io
from emca_deploy.requests import LogitsRequest, TaskName
from emca_deploy.results.accuracy import AccuracyReport, TemperatureFit
from emca_deploy.results.codec import to_json
from emca_deploy.results.gate import Verdict
from emca_deploy.targets.base import ChoosePreprocessing, Validated
from emca_deploy.targets.named_artifacts import split_artifact
from emca_deploy.targets.named_machines import open_target, ready
from emca_deploy.tasks.flips import FlipsFile

__all__ = ["Runs", "ValidateReport", "ValidateRequest", "kept_logits", "validate"]


@dataclass(frozen=True)
class ValidateRequest:
    """Options of a validation. Other fields are as in `ProfileRequest`.

    Attributes:
        artifact: "path" or "backend=path".
        data: labelled images: a folder, a zip or an npz file. Without labels, only the agreement with the reference is measured.
        backend: backend to run the artifact on; None is its own.
        reference: model to compare with, such as the fp32 .onnx file; it runs on the processor of the same machine.
        reference_backend: backend to run the reference on; None is onnxruntime for .onnx.
        max_drop: limit of the gate in points of top-1, or of AP; None measures without a gate.
        limit: number of images, equally many per class; None uses all.
        batch: images per call.
        logits: .npz file for the artifact's logits, from which an interrupted run continues.
        reference_logits: .npz file for the reference's logits.
        fit_temperature: whether to fit a temperature to the reference's probabilities, and keep it in the artifact's manifest.
        corruptions: kinds of image corruptions to measure artifact and reference with: names or sets of them, joined by commas.
        explain: whether to split the change from the reference over the stages that cause it.
        flips: .csv or .json file for all images whose predicted class differs, or all lost and gained detections.
        output_name: output with the logits, if the model has several.
        preprocessing: known facts about the preprocessing; the manifest has the rest.
        labelling: known facts about the labels.
        annotations: objects in COCO's JSON format, for a detector; `data` has their images.
    """

    artifact: str
    data: Path
    backend: str | None = None
    target: str | None = "cpu"
    reference: str | None = None
    reference_backend: str | None = None
    max_drop: float | None = None
    limit: int | None = None
    batch: int = 16
    threads: int | None = None
    precision: str = "f32"
    logits: Path | None = None
    reference_logits: Path | None = None
    flips: Path | None = None
    fit_temperature: bool = False
    corruptions: str | None = None
    explain: bool = False
    power_mode: str | None = None
    untuned: bool = False
    output_name: str | None = None
    preprocessing: PreprocessingOptions = field(default_factory=PreprocessingOptions)
    labelling: Labelling = field(default_factory=Labelling)
    annotations: Path | None = None


@dataclass(frozen=True)
class ValidateReport:
    """Result of a validation.

    Attributes:
        accuracy: the accuracy or the average precision, and the comparison with the reference.
        verdict: decision of the gate; None without a gate.
        warnings: reasons to doubt the result, one line each.
        notes: other facts for the user, one line each.
        unwritten: why the file of flips could not be written; None if it was written or not requested.
    """

    accuracy: Report
    verdict: Verdict | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unwritten: OutputError | None = None


class Runs(Protocol):
    """What runs a data set: a target, or one that several workers share. The methods are those of `Target`."""

    is_remote: ClassVar[bool]

    @property
    def name(self) -> str:
        """Its name, as a request has it."""

    @property
    def processor(self) -> "Runs":
        """The processor of the same machine, which runs a reference."""

    def check(self, request: LogitsRequest) -> None:
        """Refuse a request that it cannot run."""

    def notes(self, request: LogitsRequest) -> tuple[str, ...]:
        """Return notes for the user before the run."""

    def validate(
        self, request: LogitsRequest, progress: Progress | None = None, choose: ChoosePreprocessing | None = None
    ) -> Validated:
        """Run the data set."""


def validate(request: ValidateRequest, stage: Stage = silent, runs: Runs | None = None) -> ValidateReport:
    """Run a data set through an artifact, and through a reference if there is one, by default on the request's target.

    Raises:
        InputError: an artifact, the target or an option is wrong, or required labels are missing.
        DataError: an image or a file of labels cannot be read, or a label is not a class of the model.
        MissingError: a backend or device is missing.
        KeyboardInterrupt: the run was interrupted; `kept_logits` returns the files from which the same request continues.
    """
    _check(request)
    flips = None if request.flips is None else FlipsFile(request.flips)
    run = _Run(request, stage, runs)
    measured = run.both()
    images = run.images
    report = images.report(measured, stage)
    images.check_overlap(_calibrated(run.path), measured.own)
    warnings = (*report.warnings, *images.warnings)
    report = replace(report, images_per_s=measured.own.images_per_s, warnings=warnings)
    report = run.explained(measured, run.corrupted(measured, report))
    if isinstance(report, AccuracyReport) and report.temperature is not None:
        run.notes.append(_keep_temperature(run.path, report.temperature))
    verdict = None if request.max_drop is None else images.judge(report, request.max_drop)
    unwritten = None
    if flips is not None:
        try:
            images.write_flips(measured, flips)
        except OutputError as error:  # the measurement is not lost with the file
            unwritten = error
    return ValidateReport(report, verdict, (*run.warnings, *warnings), tuple(run.notes), unwritten)


def kept_logits(request: ValidateRequest) -> tuple[Path, ...]:
    """Return the files of an interrupted validation, from which the same request continues."""
    named = [path for path in (request.logits, request.reference_logits) if path is not None]
    return tuple(place for path in named for place in (path, partial_path(path)) if place.exists())


def _check(request: ValidateRequest) -> None:
    """Refuse options that require a reference without one."""
    needs = {
        "--max-drop": request.max_drop,
        "--flips": request.flips,
        "--fit-temperature": request.fit_temperature or None,
        "--explain": request.explain or None,
        "--corruptions": request.corruptions,
        "--reference-logits": request.reference_logits,
    }
    for option, value in needs.items():
        if value is not None and request.reference is None:
            raise InputError(f"{option} requires a model to compare with", "name the fp32 model with --reference")


def _keep_temperature(path: Path, fitted: TemperatureFit) -> str:
    """Write a temperature into the manifest of an artifact, if it has one, and return a note about it.

    Raises:
        OutputError: the manifest cannot be written.
    """
    manifest = read_manifest(path, verify=False)
    if manifest is None:
        return f"{path}: has no manifest to keep the temperature in"
    kept = None if fitted.temperature == 1 else fitted.temperature
    write_json(manifest_path(path), to_json(replace(manifest, temperature=kept)))
    if kept is None:
        return f"{path}: no temperature brings its probabilities nearer to the reference's, so the manifest has none"
    return f"{manifest_path(path)}: has the temperature {kept:.4f} now"


def _task(request: ValidateRequest, path: Path) -> TaskName:
    """Return the task to measure: detection with annotations, else that of an .onnx file, else classification."""
    if request.annotations is not None:
        return "detection"
    return OnnxFile.open(path).task if path.suffix.lower() == ".onnx" and path.is_file() else "classification"


def _calibrated(path: Path) -> tuple[str, ...]:
    """Return the digests of the calibration images of an artifact, if its manifest has them."""
    manifest = read_manifest(path, verify=False)
    known = None if manifest is None else manifest.details.get("calibration_images")
    return tuple(str(digest) for digest in known) if isinstance(known, list) else ()


class _Run:
    """A validation in progress: its images, notes and warnings."""

    def __init__(self, request: ValidateRequest, stage: Stage, runs: "Runs | None") -> None:
        self._runs = runs
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.path = Path(split_artifact(request.artifact)[1])
        open_target(request.target)  # an unknown name is refused before the artifact is read
        self._task = _task(request, self.path)
        if request.fit_temperature and self._task != "classification":
            raise InputError(f"{self.path}: is no classifier, so --fit-temperature has no probabilities to fit", "leave it out")
        self._corruptions = None
        if request.corruptions is not None:
            self._corruptions = Corruptions.of(request.corruptions, request.max_drop)
            if self._task != "classification":
                raise InputError(f"{self.path}: is no classifier, whose images --corruptions takes", "leave it out")
        self._explaining = None
        if request.explain:
            if self._task != "classification":
                raise InputError(f"{self.path}: is no classifier, whose logits --explain takes apart", "leave it out")
            named = Path(split_artifact(str(request.reference))[1])
            self._explaining = Explaining(self.path, named, request.output_name, request.threads)
            self._explaining.check()
        self._sides: tuple[Side, Side] | None = None
        wishes = Wishes(
            request.artifact, request.data, request.reference, request.max_drop, request.annotations, request.labelling,
            request.fit_temperature, needs_truth=request.corruptions is not None,
        )  # fmt: skip
        self.images = EVALUATIONS[self._task](wishes)
        self._wanted, self._stage = request, stage

    def both(self) -> Measured:
        """Return the results of the artifact, and of the reference if there is one."""
        opened, request = ready(self._request())
        target = opened if self._runs is None else self._runs
        if self._corruptions is not None:  # refused before a connection is made
            beside = target.processor
            self._sides = Side.of(target, request), Side.of(beside, self._reference(request, beside))
        self.notes += target.notes(request)
        if self._wanted.reference is None:
            return Measured(self._logits(target, request, self._open), None)
        reference = self._reference(request, target.processor)
        target.processor.check(reference)
        target.processor.notes(reference)  # raises if the model cannot be run
        ours = self._logits(target, request, self._open)
        own = read_manifest(self.path, verify=False)
        of_network = own.network if own is not None and "in_graph" in own.details else ours.preprocessing
        return Measured(ours, self._logits(target.processor, reference, None, of_network))

    def corrupted(self, measured: Measured, report: Report) -> Report:
        """Return the report with the accuracies of corrupted images, if they were requested."""
        if self._corruptions is None or self._sides is None or not isinstance(report, AccuracyReport):
            return report
        found = self._corruptions.measure(self._sides, measured, self.images, self._stage)
        self.warnings += self._corruptions.warnings(found)
        return replace(report, corruptions=found)

    def explained(self, measured: Measured, report: Report) -> Report:
        """Return the report with the stages of the change, if they were requested."""
        if self._explaining is None or not isinstance(report, AccuracyReport):
            return report
        target, request = ready(self._request())
        backend = split_artifact(request.artifact)[0] or request.backend or DEFAULT

        def run(model: Path, data: Path) -> LogitsResult:
            other = replace(request, artifact=str(model), backend=backend, data=str(data), logits=None, limit=None, images=None)
            return target.validate(other, None, lambda given, classes: measured.own.preprocessing).logits

        return replace(report, ledger=self._explaining.measure(measured, self.images, run, self._stage))

    def _request(self) -> LogitsRequest:
        wanted = self._wanted
        names = ("artifact", "backend", "target", "power_mode", "limit", "batch", "threads", "precision", "untuned")
        io = model_io(wanted.preprocessing.image_size, wanted.output_name)
        logits = None if wanted.logits is None else str(wanted.logits)
        more = {name: getattr(wanted, name) for name in names}
        return LogitsRequest(data=str(wanted.data), io=io, logits=logits, task=self._task, images=self.images.images, **more)

    def _reference(self, request: LogitsRequest, processor: Runs) -> LogitsRequest:
        wanted = self._wanted
        own, path = split_artifact(str(wanted.reference))
        return replace(
            request,
            artifact=path,
            backend=own or wanted.reference_backend or (DEFAULT if path.lower().endswith(".onnx") else None),
            target=processor.name,
            power_mode=None,
            precision="f32",  # it is the reference
            untuned=True,
            logits=None if wanted.reference_logits is None else str(wanted.reference_logits),
        )

    def _logits(
        self,
        target: Runs,
        request: LogitsRequest,
        opened: Callable[[Preprocessing, int | None], None] | None,
        fallback: Preprocessing | None = None,
    ) -> LogitsResult:
        """Run the data set; `opened` first gets the preprocessing and the number of classes."""
        path, said = Path(split_artifact(request.artifact)[1]), self._wanted.preprocessing

        def choose(given: TensorSpec | None, classes: int | None) -> Preprocessing:
            facts = None if given is None else InputFacts.of(given, file_facts(path).pixel_range if path.is_file() else None)
            if facts is not None and path.suffix.lower() in CHECKPOINTS and said.image_size is not None:
                facts = replace(facts, height=None, width=None)  # a checkpoint takes any size
            used = preprocessing_of_file(path, said, fallback, facts)
            if opened is not None:
                opened(used, classes)
            return used

        with self._stage(request.artifact) as progress:
            found, warnings, notes = target.validate(request, progress, choose)
        self.warnings += warnings
        self.notes += notes
        if found.reused and not target.is_remote:
            count, reused = len(found.answers), found.reused
            self.notes.append(f"{reused:,} of {count:,} images of {request.artifact} were already in {request.logits}")
        return found

    def _open(self, used: Preprocessing, outputs: int | None) -> None:
        """Open the images, and check them against the artifact's number of outputs."""
        wanted = self._wanted
        self.images.open(used, outputs)
        if self._corruptions is not None:
            self._corruptions.check_images(self.images)
        self.notes += image_notes(str(self.path), self.images.source)
        self.images.warnings += image_warnings(self.path, wanted.data, self.images.source, wanted.preprocessing)
