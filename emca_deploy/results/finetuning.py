"""The result of fine-tuning: an immutable record that converts to JSON and back. Units are in the names."""

from dataclasses import dataclass

__all__ = ["FineTuned"]


@dataclass(frozen=True)
class FineTuned:
    """How the ranges and biases of an INT8 model were fine-tuned, and whether the result was kept.

    Attributes:
        kept: Whether the fine-tuned ranges and biases are used: only where they are better on images that were not trained on.
        checkpoint_sha256: sha256 of the checkpoint whose network is the teacher.
        images: Number of calibration images that were trained on.
        kept_out: Number of the other calibration images, which judge the result.
        steps: Number of training steps.
        batch: Number of images of each step.
        complete: Whether the budget sufficed for all steps.
        budget_s: Limit of the duration.
        seconds: Duration.
        loss_db: Error of the logits on the trained images before and after: noise over signal.
        sqnr_db: SQNR of all logits of the kept-out images before and after; None where they do not differ from fp32's.
        typical_db: Mean of the kept-out images' own SQNRs before and after.
    """

    kept: bool
    checkpoint_sha256: str
    images: int
    kept_out: int
    steps: int
    batch: int
    complete: bool
    budget_s: float
    seconds: float
    loss_db: tuple[float, float]
    sqnr_db: tuple[float | None, float | None]
    typical_db: tuple[float, float]
