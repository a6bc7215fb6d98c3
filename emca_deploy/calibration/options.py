"""The choices and options of a calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emca_deploy.calibration.choice import AUTO
from emca_deploy.calibration.finetuning.finetune import FineTuning
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.ranges.drawing import Samples
from emca_deploy.calibration.recovery.weights import FINETUNE
from emca_deploy.errors import InputError
from emca_deploy.results.placement import MeasuredPlacement

__all__ = ["CalibrationChoices", "CalibrationOptions"]

DEFAULT_SAMPLES = 300


@dataclass(frozen=True, kw_only=True)
class CalibrationChoices:
    """A user's choices for a calibration.

    Attributes:
        method: calibration method, with a parameter if wanted ("percentile:99.9"), or "auto" for one of `CANDIDATES`.
        samples: number of calibration images, all where there are fewer; or "auto" for as many as the ranges need.
        seed: random seed of the choice of images.
        keep_float: patterns of nodes that stay in float, such as "stage1.*".
        table: range table to use or write; None for the one next to the model.
        recover: level of recovery: "none", "bias", "weights" or "finetune".
        float_precision: precision of the float part: "fp32", or "fp16" for TensorRT.
        output_name: name of the output with the logits, where the model has several.
    """

    method: str = AUTO
    samples: Samples = DEFAULT_SAMPLES
    seed: int = 0
    keep_float: Sequence[str] = ()
    table: Path | None = None
    recover: str = "weights"
    float_precision: str = "fp32"
    output_name: str | None = None


@dataclass(frozen=True)
class CalibrationOptions(CalibrationChoices):
    """A user's choices with the backend's recipe and number of threads.

    Attributes:
        measured_for: recipes whose tensors are all measured in one pass.
        threads: number of threads of the fp32 pass.
        placement: how the recipe was measured to be the fastest; None for a backend's own.
        fine_tuning: teacher of the level "finetune".
    """

    recipe: Recipe
    measured_for: Sequence[Recipe]
    threads: int = 1
    placement: MeasuredPlacement | None = None
    fine_tuning: FineTuning | None = None

    def __post_init__(self) -> None:
        """Refuse fine-tuning without a teacher."""
        if self.recover == FINETUNE and self.fine_tuning is None:
            raise InputError("--recover finetune requires the fp32 network's checkpoint", "name it with --checkpoint")

    @property
    def backend(self) -> str:
        """The backend whose placement is wanted."""
        return self.recipe.backend

    @property
    def teacher(self) -> FineTuning | None:
        """The teacher, where its level is wanted."""
        return self.fine_tuning if self.recover == FINETUNE else None
