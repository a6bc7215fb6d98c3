"""How calibration images were drawn."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Drawing"]


@dataclass(frozen=True)
class Drawing:
    """How the calibration images were drawn where their number was "auto".

    Attributes:
        looked_at: Number of images that the model ran on to measure ranges; weights and biases use all of them.
        used: Number of these that ranges come from.
        left_out: Number of other images, which tell when to stop and judge methods.
        reason: "enough" where wider ranges would gain at most 0.2 dB, or "no more images".
        clipped_db: Decibels of SQNR that the left-out images lose by clipping; None where no image was left out.
    """

    looked_at: int
    used: int
    left_out: int
    reason: Literal["enough", "no more images"]
    clipped_db: float | None = None
