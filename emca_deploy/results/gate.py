"""The accuracy gate, shared by `calibrate`, `validate` and `deploy`, and the record of a search for a model within it."""

from dataclasses import dataclass

from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import left_out, version
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
    """The limit on a candidate's drop: the upper end of the drop's 95% interval must not be above `max_drop` points of top-1.

    Only then is it shown that the drop is no larger.
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

    def decidable(self, images: int) -> bool:
        """Return whether this number of images can show any candidate to be within the gate."""
        return upper_end_without_difference(images) <= self.max_drop


@dataclass(frozen=True)
class GateStep:
    """One INT8 model, measured on the validation images.

    Attributes:
        kept_float: Patterns of the layers and blocks left in float, in the order they were chosen; without the user's own.
        float_macs_percent: Share of multiply-adds in float, of all that the placement quantizes.
        top1: Accuracy in percent.
        agreement: Percent of images with the same class as in fp32.
        top1_drop: Top-1 of fp32 minus that of this model, points.
        top1_drop_ci95: Paired 95% interval of the drop.
        only_fp32: Number of images that only fp32 gets right.
        only_int8: Number of images that only this model gets right.
        reused: Whether an earlier run measured it.
        fine_tuned: Whether its weights and ranges were fine-tuned.
    """

    kept_float: tuple[str, ...]
    float_macs_percent: float
    top1: float
    agreement: float
    top1_drop: float
    top1_drop_ci95: tuple[float, float]
    only_fp32: int
    only_int8: int
    reused: bool = False
    fine_tuned: bool = left_out(False)


@dataclass(frozen=True)
class GateReport:
    """The result of `calibrate --max-drop`.

    Attributes:
        max_drop: Limit on the upper end of the drop's interval, points.
        images: Number of validation images.
        top1_fp32: Accuracy of the fp32 model on ONNX Runtime, percent.
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
    top1_fp32: float
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
