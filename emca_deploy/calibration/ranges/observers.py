"""Streaming observers: they see a tensor image by image and keep only what its range needs. Pure numpy."""

from dataclasses import dataclass

import numpy as np

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.ranges.histogram import Histogram

__all__ = ["HistogramObserver", "MinMaxObserver", "MovingAverageObserver", "Observation", "TensorRange"]


@dataclass(frozen=True)
class TensorRange:
    """The range of a tensor's values that its integers represent.

    Attributes:
        minimum: where asymmetric quantization starts.
        maximum: where it ends.
        threshold: the largest magnitude of symmetric quantization, where the method has another than the larger of the two ends.
    """

    minimum: float
    maximum: float
    threshold: float | None = None

    @property
    def magnitude(self) -> float:
        """The largest magnitude that symmetric quantization represents."""
        return max(-self.minimum, self.maximum) if self.threshold is None else self.threshold


@dataclass(frozen=True)
class Observation:
    """What is known of a tensor's values over the calibration images.

    Attributes:
        minimum: the smallest.
        maximum: the largest.
        histogram: of all of them, where one was kept.
        average: the moving averages of each image's smallest and largest, where they were kept.
    """

    minimum: float
    maximum: float
    histogram: Histogram | None = None
    average: tuple[float, float] | None = None


class MinMaxObserver:
    """The smallest and largest value seen; independent of the order and the size of batches."""

    def __init__(self) -> None:
        self._minimum = np.inf
        self._maximum = -np.inf

    def observe(self, minima: Float32Array, maxima: Float32Array) -> None:
        """Take in the smallest and largest values of some images, each an array of any shape.

        Raises:
            ValueError: a value is infinite or not a number.
        """
        low, high = float(np.min(minima)), float(np.max(maxima))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"range [{low}, {high}] is not finite")
        self._minimum, self._maximum = min(self._minimum, low), max(self._maximum, high)

    def observation(self) -> Observation:
        """Return the range of everything observed.

        Raises:
            ValueError: nothing was observed.
        """
        if self._minimum > self._maximum:
            raise ValueError("nothing was observed")
        return Observation(self._minimum, self._maximum)

    def range(self) -> TensorRange:
        """Return the range of everything observed.

        Raises:
            ValueError: nothing was observed.
        """
        seen = self.observation()
        return TensorRange(seen.minimum, seen.maximum)


class MovingAverageObserver(MinMaxObserver):
    """Exponential moving averages of each image's smallest and largest value, over images in their order, however batched.

    Args:
        momentum: the share of the past in each step, in [0, 1).
    """

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self._momentum = momentum
        self._average: tuple[float, float] | None = None

    def observe(self, minima: Float32Array, maxima: Float32Array) -> None:
        """Take in the smallest and largest values of some images, one an image, in order.

        Raises:
            ValueError: a value is infinite or not a number.
        """
        super().observe(minima, maxima)
        for low, high in zip(minima.ravel().tolist(), maxima.ravel().tolist(), strict=True):
            if self._average is None:
                self._average = (low, high)
            past, share = self._average, self._momentum
            self._average = (share * past[0] + (1 - share) * low, share * past[1] + (1 - share) * high)

    def observation(self) -> Observation:
        """Return the range of everything observed and the averages.

        Raises:
            ValueError: nothing was observed.
        """
        seen = super().observation()
        return Observation(seen.minimum, seen.maximum, average=self._average)


class HistogramObserver:
    """The histogram of everything seen; independent of the order and the size of batches."""

    def __init__(self) -> None:
        self._histogram: Histogram | None = None

    def observe(self, histogram: Histogram) -> None:
        """Take in the histogram of some images' values."""
        self._histogram = histogram if self._histogram is None else self._histogram.merged(histogram)

    def observation(self) -> Observation:
        """Return the histogram of everything observed.

        Raises:
            ValueError: nothing was observed.
        """
        if self._histogram is None:
            raise ValueError("nothing was observed")
        return Observation(self._histogram.minimum, self._histogram.maximum, self._histogram)
