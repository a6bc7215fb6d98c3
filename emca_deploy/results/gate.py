"""How an accuracy gate was reached, or was not, as an immutable, versioned record. Units are in the names."""

from dataclasses import dataclass

from emca_deploy.results.codec import version

__all__ = ["GateReport", "GateStep"]

SCHEMA_VERSION = 1


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
