"""The gate on accuracy: one decision for `calibrate`, `validate` and `deploy`, and the record of how a search reached it."""

from dataclasses import dataclass

from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import version
from emca_deploy.stats.paired import images_needed, upper_end_without_difference

__all__ = ["Gate", "GateReport", "GateStep", "Verdict"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Verdict:
    """The gate's decision about one candidate.

    Attributes:
        reached: whether the candidate is inside.
        reason: why it is not; empty where it is.
        images_needed: about how many images would bring the interval inside, if more of them were like these; None where no
            number would, or where it is inside already.
    """

    reached: bool
    reason: str = ""
    images_needed: int | None = None


@dataclass(frozen=True)
class Gate:
    """What a candidate may lose: the upper end of the drop's 95% interval must not lie above `max_drop`.

    Only then has the drop been shown to be no larger.

    Attributes:
        max_drop: points of top-1.
    """

    max_drop: float

    def judge(self, drop: float, interval: tuple[float, float], images: int, lost: int = 0, won: int = 0) -> Verdict:
        """Decide about a candidate.

        Args:
            drop: the reference's top-1 less the candidate's, points.
            interval: its paired 95% interval.
            images: that both were measured on.
            lost: images that the reference alone gets right.
            won: images that the candidate alone gets right.
        """
        if interval[1] <= self.max_drop:
            return Verdict(True)
        reason = "the drop itself is outside" if drop > self.max_drop else "the drop itself is inside, but not its interval"
        if not self.decidable(images):
            least = upper_end_without_difference(images)
            reason += f"; {images:,} images are too few, the interval reaches {least:.2f} points even without any difference"
        return Verdict(False, reason, images_needed(lost, won, images, self.max_drop))

    def judge_report(self, report: AccuracyReport) -> Verdict:
        """Decide about a candidate that was validated against a reference on labelled images."""
        reference = report.reference
        assert reference is not None
        assert reference.top1_drop is not None
        assert reference.top1_drop_ci95 is not None
        assert reference.flips is not None
        lost, won = reference.flips.lost or 0, reference.flips.won or 0
        return self.judge(reference.top1_drop, reference.top1_drop_ci95, report.samples, lost, won)

    def decidable(self, images: int) -> bool:
        """Return whether so many images could show any candidate to be inside."""
        return upper_end_without_difference(images) <= self.max_drop


@dataclass(frozen=True)
class GateStep:
    """One INT8 model, measured on the validation images.

    Attributes:
        kept_float: patterns of the layers and blocks left in float, the user's own aside, in the order they were chosen.
        float_macs_percent: their multiply-adds, of all that the placement quantizes.
        top1: percent.
        agreement: percent of images with the class that fp32 gives.
        top1_drop: fp32's top-1 minus this one's, points.
        top1_drop_ci95: its paired 95% interval.
        only_fp32: images that fp32 gets right and this one wrong.
        only_int8: the other way round.
        reused: whether it was measured by an earlier run.
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


@dataclass(frozen=True)
class GateReport:
    """What `calibrate --max-drop` found.

    Attributes:
        max_drop: the gate: the upper end of the drop's interval must not lie above it, points.
        images: validation images.
        top1_fp32: percent, of the fp32 model on ONNX Runtime.
        measured_with: the backend that ran the INT8 models.
        simulated: whether that is another than the one they are placed for, which cannot run here.
        steps: every model measured, the first with nothing left in float.
        chosen: index of the step whose model was written.
        reached: whether that one is inside the gate.
        reason: why the gate was not reached; empty where it was.
        images_needed: how many validation images would bring the chosen one's interval inside the gate, if they were like these;
            None where no number would, or where it is inside already.
        slowdown: the chosen model's median latency over that of the one with nothing left in float; None where they are the
            same or cannot run here.
        slowdown_ci95: its bootstrap interval.
        warnings: what may be wrong with the labels of the validation images, a line each.
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
