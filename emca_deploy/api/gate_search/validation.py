"""The drop of INT8 models on labelled or annotated images, measured with their own backend if that runs on this machine."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emca_deploy._progress import Stage
from emca_deploy.artifacts import Precision
from emca_deploy.backends.records import names_where
from emca_deploy.backends.registry import DEFAULT, open_runner
from emca_deploy.calibration.options import CalibrationOptions
from emca_deploy.errors import DataError, InputError
from emca_deploy.harness.accuracy.collection import LogitsResult, LogitsRun
from emca_deploy.harness.accuracy.evaluation import Evaluation, Measured, Wishes
from emca_deploy.harness.accuracy.evaluations import EVALUATIONS
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.harness.measure.protocol import FEWEST_PROCESSES
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.requests import TaskName
from emca_deploy.results.accuracy import ReferenceComparison
from emca_deploy.results.codec import from_json
from emca_deploy.results.detection import DetectionReport
from emca_deploy.results.figures import figures_of
from emca_deploy.results.gate import GateStep

__all__ = ["Validation", "step_from_file"]


@dataclass
class Validation:
    """The validation of a model's INT8 forms.

    Attributes:
        model: the fp32 model, whose answers are the reference.
        images: the images with labels or annotations.
        backend: backend that the models are quantized for.
        threads: threads of the runtime.
        output_name: output with the logits, if the model has several.
        decoded: folder that keeps the decoded images, see `data.decoded`.
    """

    model: Path
    images: Evaluation
    backend: str
    threads: int
    output_name: str | None = None
    decoded: Path | None = None
    _reference: LogitsResult | None = field(default=None, init=False)

    @classmethod
    def of(cls, model: Path, used: Preprocessing, wishes: Wishes, options: CalibrationOptions) -> "Validation":
        """Open the images with this preprocessing, and refuse what would fail later.

        Raises:
            InputError: options do not go together.
            DataError: the images have no labels or annotations, or labels that are not classes of the model.
            MissingError: the backend's library is not installed.
        """
        file = OnnxFile.open(model)
        task = file.task if options.output_name is None else "classification"
        if task != file.task:
            problem = f"--max-drop: {model} is the dense part of a detector, which returns no detections"
            raise InputError(problem, "calibrate the whole detector within the gate, or leave --max-drop and --val out")
        if task == "classification" and wishes.annotations is not None:
            raise InputError(f"--annotations: {model} is an image classifier", "leave it out, and label the images of --val")
        images = EVALUATIONS[task](wishes)
        images.open(used, file.find_logits(options.output_name).classes if task == "classification" else None)
        found = cls(model, images, options.backend, options.threads, options.output_name)
        open_runner(found.runs_on, str(model))
        return found

    @property
    def runs_on(self) -> str:
        """The backend that runs the INT8 models."""
        return self.backend if self.backend in names_where(reads_onnx=True, needs_gpu=False) else DEFAULT

    @property
    def simulated(self) -> bool:
        """Whether that is not the backend that they are quantized for."""
        return self.runs_on != self.backend

    @property
    def task(self) -> TaskName:
        """The task of the model."""
        return next(name for name, kind in EVALUATIONS.items() if isinstance(self.images, kind))

    def measure(self, onnx: Path, kept: tuple[str, ...], macs_percent: float, stage: Stage) -> GateStep:
        """Measure an INT8 model, in which the patterns `kept` are in float with `macs_percent` of the multiply-adds.

        Raises:
            DataError: an image cannot be read, or a label is not a class of the model.
            EmcaError: the backend failed.
        """
        if self._reference is None:
            self._reference = self._answers("fp32", DEFAULT, self.model, "fp32", stage)
        what = f"{kept[-1]} in float too" if kept else "all in INT8"
        found = self._answers(what, self.runs_on, onnx, "int8", stage)
        report = self.images.report(Measured(found, self._reference), stage)
        against = report.reference
        assert against is not None  # there are a reference and labels
        if isinstance(report, DetectionReport):
            return GateStep(kept, macs_percent, None, against.agreement, None, None, None, None, figures=figures_of(report))
        assert isinstance(against, ReferenceComparison)
        assert against.flips is not None
        return GateStep(
            kept_float=kept,
            float_macs_percent=macs_percent,
            top1=report.top1 or 0.0,
            agreement=against.agreement,
            top1_drop=against.top1_drop,
            top1_drop_ci95=against.top1_drop_ci95,
            only_fp32=against.flips.lost or 0,
            only_int8=against.flips.won or 0,
        )

    def slowdown(self, chosen: Path, whole: Path, duration_s: float, stage: Stage) -> tuple[float, tuple[float, float]]:
        """Return the ratio of the chosen model's median latency to that of the one wholly in INT8, with its interval."""
        specs = [self._spec("chosen", self.runs_on, chosen, "int8"), self._spec("all in INT8", self.runs_on, whole, "int8")]
        with stage("comparing latency") as progress:
            (comparison,) = measure(specs, Protocol(duration_s=duration_s, processes=FEWEST_PROCESSES), progress).comparisons
        return comparison.ratio_p50, comparison.ratio_ci95

    def _answers(self, name: str, backend: str, onnx: Path, precision: Precision, stage: Stage) -> LogitsResult:
        with stage(f"validating {name}") as progress:
            spec = self._spec(name, backend, onnx, precision)
            used, images = self.images.source.preprocessing, self.images.images
            run = LogitsRun(spec, self.images.wishes.data, used, decoded=self.decoded, images=images, task=self.task)
            return run.collect(progress)

    def _spec(self, name: str, backend: str, onnx: Path, precision: Precision) -> RunnerSpec:
        arguments: dict[str, Any] = {"backend": backend, "artifact": str(onnx), "threads": self.threads, "spin": False}
        if self.output_name is not None:
            arguments["io"] = {"output_name": self.output_name}
        return RunnerSpec(name, kwargs=arguments, artifact=str(onnx), backend=backend, precision=precision)


def step_from_file(value: Any) -> GateStep | None:
    """Return a step from a side file, or None if the value is not a step."""
    try:
        return replace(from_json(GateStep, value), reused=True)
    except DataError:
        return None
