"""Streaming observers: they see a tensor batch by batch and keep only what its range needs. Pure numpy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["MinMaxObserver", "TensorRange"]


@dataclass(frozen=True)
class TensorRange:
    """The range of a tensor's values over the calibration images."""

    minimum: float
    maximum: float


class MinMaxObserver:
    """The smallest and largest value seen; independent of the order and the size of batches."""

    def __init__(self) -> None:
        self._minimum = np.inf
        self._maximum = -np.inf

    def observe(self, minima: npt.NDArray[np.float32], maxima: npt.NDArray[np.float32]) -> None:
        """Take in the smallest and largest values of some images, each an array of any shape.

        Raises:
            ValueError: a value is infinite or not a number.
        """
        low, high = float(np.min(minima)), float(np.max(maxima))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"range [{low}, {high}] is not finite")
        self._minimum, self._maximum = min(self._minimum, low), max(self._maximum, high)

    def range(self) -> TensorRange:
        """Return the range of everything observed.

        Raises:
            ValueError: nothing was observed.
        """
        if self._minimum > self._maximum:
            raise ValueError("nothing was observed")
        return TensorRange(self._minimum, self._maximum)
