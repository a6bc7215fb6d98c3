"""The accuracy gate, shared by `calibrate`, `validate` and `deploy`, and the record of a search for a model within it."""

from collections.abc import Sequence
from dataclasses import dataclass

from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import left_out, version
from emca_deploy.results.figures import Figure
from emca_deploy.stats.paired import images_needed, upper_end_without_difference

__all__ = ["Gate", "GateReport", "GateStep", "Verdict"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Verdict:
    """The gate's decision about one candidate.

    Attributes:
        reached: Whether the candidate is within the gate.
        reason: Why it is not; empty where it is.
        images_needed: Approximate number of similar images that would bring the interval within the gate; None where no number
            would, or where it is within already.
    """

    reached: bool
    reason: str = ""
    images_needed: int | None = None


@dataclass(frozen=True)
class Gate:
    """The limit on a candidate's drop: the upper end of the drop's 95% interval must not be above `max_drop` points.

    Only then is it shown that the drop is no larger. A classifier's drop is that of its top-1. A detector has a drop of each AP.
    """

    max_drop: float

    def judge(self, drop: float, interval: tuple[float, float], images: int, lost: int = 0, won: int = 0) -> Verdict:
        """Decide about a candidate.

        Args:
            drop: Top-1 of the reference minus that of the candidate, points.
            interval: Paired 95% interval of the drop.
            images: Number of images that both were measured on.
            lost: Number of images that only the reference gets right.
            won: Number of images that only the candidate gets right.
        """
        if interval[1] <= self.max_drop:
            return Verdict(True)
        reason = "the drop is above it" if drop > self.max_drop else "the drop is within it, but its interval is not"
        if not self.decidable(images):
            least = upper_end_without_difference(images)
            reason += f"; {images:,} images are too few: the interval reaches {least:.2f} points even without any difference"
        return Verdict(False, reason, images_needed(lost, won, images, self.max_drop))

    def judge_report(self, report: AccuracyReport) -> Verdict:
        """Decide about a candidate that was validated against a reference on labelled images."""
        assert report.reference is not None
        drop, interval, flips = report.reference.top1_drop, report.reference.top1_drop_ci95, report.reference.flips
        assert drop is not None
        assert interval is not None
        assert flips is not None
        return self.judge(drop, interval, report.samples, flips.lost or 0, flips.won or 0)

    def judge_figures(self, figures: Sequence[Figure], images: int) -> Verdict:
        """Decide about a detector by all its figures, measured on this number of images."""
        for figure in figures:
            drop, interval = figure.drop, figure.drop_ci95
            if drop is None or interval is None or interval[1] <= self.max_drop:
                continue
            if drop > self.max_drop:
                return Verdict(False, f"the drop of the {figure.name} is above it")
            needed = None
            if drop < self.max_drop:  # the interval's width falls with the square root of the number of images
                needed = round(images * ((interval[1] - drop) / (self.max_drop - drop)) ** 2 / 10) * 10
            return Verdict(False, f"the drop of the {figure.name} is within it, but its interval is not", needed)
        return Verdict(True)

    def judge_step(self, step: "GateStep", images: int) -> Verdict:
        """Decide about a step of a search, measured on this number of images."""
        if step.figures:
            return self.judge_figures(step.figures, images)
        assert step.top1_drop is not None
        assert step.top1_drop_ci95 is not None
        return self.judge(step.top1_drop, step.top1_drop_ci95, images, step.only_fp32 or 0, step.only_int8 or 0)

    def decidable(self, images: int) -> bool:
        """Return whether this number of images can show any candidate to be within the gate."""
        return upper_end_without_difference(images) <= self.max_drop


@dataclass(frozen=True)
class GateStep:
    """One INT8 model, measured on the validation images. Fields of the top-1 and of images are None for a detector.

    Attributes:
        kept_float: Patterns of the layers and blocks left in float, in the order they were chosen; without the user's own.
        float_macs_percent: Share of multiply-adds in float, of all that the placement quantizes.
        top1: Accuracy in percent.
        agreement: Percent of images with the same class as in fp32, or of fp32's detections that the model has too.
        top1_drop: Top-1 of fp32 minus that of this model, points.
        top1_drop_ci95: Paired 95% interval of the drop.
        only_fp32: Number of images that only fp32 gets right.
        only_int8: Number of images that only this model gets right.
        reused: Whether an earlier run measured it.
        fine_tuned: Whether its weights and ranges were fine-tuned.
        figures: Average precisions of a detector, and their drops from fp32; empty for a classifier.
    """

    kept_float: tuple[str, ...]
    float_macs_percent: float
    top1: float | None
    agreement: float | None
    top1_drop: float | None
    top1_drop_ci95: tuple[float, float] | None
    only_fp32: int | None
    only_int8: int | None
    reused: bool = False
    fine_tuned: bool = left_out(False)
    figures: tuple[Figure, ...] = left_out(())

    @property
    def shown(self) -> tuple[Figure, ...]:
        """The figures that the gate is for: the top-1 of a classifier, or the average precisions of a detector."""
        if self.figures or self.top1 is None or self.top1_drop is None:
            return self.figures
        return (Figure("top-1", self.top1, self.top1 + self.top1_drop, self.top1_drop, self.top1_drop_ci95),)

    @property
    def upper_end(self) -> float:
        """The highest upper end of the figures' intervals, points."""
        return max((figure.drop_ci95[1] for figure in self.shown if figure.drop_ci95 is not None), default=0.0)


@dataclass(frozen=True)
class GateReport:
    """The result of `calibrate --max-drop`.

    Attributes:
        max_drop: Limit on the upper end of the drop's interval, points.
        images: Number of validation images.
        top1_fp32: Accuracy of the fp32 model on ONNX Runtime, percent; None for a detector.
        measured_with: Backend that ran the INT8 models.
        simulated: Whether that is not the backend they are placed for, which this machine cannot run.
        steps: Every measured model; the first has nothing left in float.
        chosen: Index of the step whose model was written.
        reached, reason, images_needed: Verdict on the chosen model, with the meanings in `Verdict`.
        slowdown: Median latency of the chosen model divided by that of the first; None where they are the same or cannot run on
            this machine.
        slowdown_ci95: Bootstrap interval of the slowdown.
        warnings: Possible faults of the validation images' labels, a line each.
    """

    max_drop: float
    images: int
    top1_fp32: float | None
    measured_with: str
    simulated: bool
    steps: tuple[GateStep, ...]
    chosen: int
    reached: bool
    reason: str = ""
    images_needed: int | None = None
    slowdown: float | None = None
    slowdown_ci95: tuple[float, float] | None = None
    schema_version: int = version(SCHEMA_VERSION)
    warnings: tuple[str, ...] = ()

    @property
    def best(self) -> GateStep:
        """The step whose model was written."""
        return self.steps[self.chosen]
