"""Streaming observers, which see a tensor image by image and keep what its range needs. Pure numpy."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.ranges.histogram import Histogram

__all__ = ["KEPT_OUT_TURN", "HistogramObserver", "MinMaxObserver", "Observation", "Observer", "TensorRange"]

KEPT_OUT_TURN = 4
"""Every batch of this number is kept out of the observation that trial ranges come from."""


@dataclass(frozen=True)
class TensorRange:
    """The range of a tensor's values that its integers represent.

    Attributes:
        minimum: lower end of asymmetric quantization.
        maximum: upper end of asymmetric quantization.
        threshold: largest magnitude of symmetric quantization; None for the larger end.
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
    """A tensor's observed values over the calibration images.

    Attributes:
        histogram: histogram of all values, where the observer keeps one.
        own: numbers, or tuples of numbers, that a method's own observer keeps, by name.
        trial: observation without the kept-out images, which judge ranges that they did not influence; None where no image is
            kept out.
    """

    minimum: float
    maximum: float
    histogram: Histogram | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    trial: "Observation | None" = None


class Observer(Protocol):
    """An observer of one tensor, which reads each image's smallest and largest values, or histograms."""

    def observe(self, *digest: Any) -> None:
        """Add some images' values."""

    def observation(self) -> Observation:
        """Return the observation of all values.

        Raises:
            ValueError: nothing was observed.
        """


class MinMaxObserver:
    """An observer of the smallest and largest value, whatever the order and size of batches."""

    def __init__(self) -> None:
        self._minimum = np.inf
        self._maximum = -np.inf

    def observe(self, minima: Float32Array, maxima: Float32Array) -> None:
        """Add the smallest and largest values of some images, arrays of any shape.

        Raises:
            ValueError: a value is infinite or not a number.
        """
        low, high = float(np.min(minima)), float(np.max(maxima))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"range [{low}, {high}] is not finite")
        self._minimum, self._maximum = min(self._minimum, low), max(self._maximum, high)

    def observation(self) -> Observation:
        """Return the smallest and largest value."""
        if self._minimum > self._maximum:
            raise ValueError("nothing was observed")
        return Observation(self._minimum, self._maximum)


class HistogramObserver:
    """An observer of the histograms of all values, and of the values without every `KEPT_OUT_TURN`th batch."""

    def __init__(self) -> None:
        self._parts: list[Histogram | None] = [None, None]
        self._batches = 0

    def observe(self, histogram: Histogram) -> None:
        """Add the histogram of one batch."""
        self._batches += 1
        part = int(self._batches % KEPT_OUT_TURN == 0)
        before = self._parts[part]
        self._parts[part] = histogram if before is None else before.merged(histogram)

    def observation(self) -> Observation:
        """Return the histogram, the smallest and the largest value, and those without the kept-out batches."""
        others, kept_out = self._parts
        if others is None:
            raise ValueError("nothing was observed")
        if kept_out is None:
            return _observed(others)
        return replace(_observed(others.merged(kept_out)), trial=_observed(others))


def _observed(histogram: Histogram) -> Observation:
    return Observation(histogram.minimum, histogram.maximum, histogram)
