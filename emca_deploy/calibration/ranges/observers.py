"""Streaming observers: they see a tensor image by image and keep only what its range needs. Pure numpy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.ranges.histogram import Histogram

__all__ = ["HistogramObserver", "MinMaxObserver", "Observation", "Observer", "TensorRange"]


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
        own: what a method's own observer kept besides, by name: numbers and tuples of them.
    """

    minimum: float
    maximum: float
    histogram: Histogram | None = None
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counted(self) -> Histogram:
        """The histogram.

        Raises:
            ValueError: none was kept.
        """
        if self.histogram is None:
            raise ValueError("no histogram was kept")
        return self.histogram


class Observer(Protocol):
    """What sees one tensor, image by image: either each image's smallest and largest values, or histograms."""

    def observe(self, *digest: Any) -> None:
        """Take in what there is to know of some images' values."""

    def observation(self) -> Observation:
        """Return what is known of all of them."""


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
