"""The range with the smallest squared error."""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float64Array
from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.methods.base import HistogramMethod
from emca_deploy.calibration.ranges.observers import TensorRange

__all__ = ["LeastSquaredError", "expected_error"]

CANDIDATES = 128
"""Clipping points at each end, evenly spaced up to the end itself."""

STRIDE = 4
"""The search tries every fourth clipping point, and then those around the best: the error has one valley."""

SWEEPS = 4
"""Most passes over both ends; the search stops where nothing improves, usually after two."""


class LeastSquaredError(HistogramMethod):
    """The range with the smallest expected squared error of quantizing.

    The ends are for uint8 with a zero point, the threshold for int8 without. Min-max is among the candidates of both. The
    parameter is how often the error of a clipped value counts, 1 where it is left out: clipped values lie close together, and a
    layer's sums average their errors less than those of rounding.
    """

    name = "mse"
    bounds = (1.0, 1e6)

    def from_histogram(self, histogram: Histogram) -> TensorRange:
        """Return the range with the smallest error."""
        low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
        magnitude = max(-low, high)
        shares = np.arange(1, CANDIDATES + 1) / CANDIDATES
        filled = histogram.counts > 0
        shares_of_bins = histogram.counts[filled] / histogram.count
        error = partial(expected_error, histogram.centres()[filled], shares_of_bins, clip_weight=self.parameter or 1.0)
        threshold, _ = _least(magnitude * shares, lambda ends: error(-ends, ends, symmetric=True))
        best = float(error(np.array([low]), np.array([high]), symmetric=False)[0])
        for _ in range(SWEEPS):
            before = best
            for end in (0, 1):
                ends = (histogram.minimum, histogram.maximum)[end] * shares
                if not ends.any() or (ends > 0).any() != bool(end):
                    continue

                def of_pair(tried: Float64Array, end: int = end, other: float = (high, low)[end]) -> Float64Array:
                    pair = (tried, np.full_like(tried, other))
                    return error(*(pair if end == 0 else pair[::-1]), symmetric=False)

                found, least = _least(ends, of_pair)
                if least < best:
                    best = least
                    low, high = (found, high) if end == 0 else (low, found)
            if best == before:
                break
        return TensorRange(low, high, threshold)


def _least(candidates: Float64Array, error: Callable[[Float64Array], Float64Array]) -> tuple[float, float]:
    """Return the candidate with the smallest error, and that error; of equals the largest, which clips least."""

    def best_of(indices: npt.NDArray[np.int64]) -> tuple[int, float]:
        errors = error(candidates[indices])
        place = len(errors) - 1 - int(np.argmin(errors[::-1]))
        return int(indices[place]), float(errors[place])

    near, _ = best_of(np.arange(STRIDE - 1, len(candidates), STRIDE))
    best, least = best_of(np.arange(max(0, near - STRIDE + 1), min(len(candidates), near + STRIDE)))
    return float(candidates[best]), least


def expected_error(
    values: Float64Array,
    shares: Float64Array,
    lows: Float64Array,
    highs: Float64Array,
    *,
    symmetric: bool,
    clip_weight: float = 1.0,
) -> Float64Array:
    """Return the expected squared error, (m,) float64, of quantizing values to each of several ranges.

    Values and their shares are (n,), the ranges' lows (at most 0) and highs (at least 0) are (m,). `symmetric` is int8 in
    [-127, 127] up to the larger end, instead of uint8 with a zero point. What lies beyond a range counts `clip_weight` times.
    """
    if symmetric:
        scales, zeros, levels = np.maximum(-lows, highs) / 127, np.zeros_like(lows), (-127.0, 127.0)
        lows, highs = -np.maximum(-lows, highs), np.maximum(-lows, highs)
    else:
        scales = ((highs - lows) / 255).astype(np.float32).astype(np.float64)
        zeros, levels = np.clip(np.rint(-lows / np.where(scales > 0, scales, 1.0)), 0, 255), (0.0, 255.0)
    scales = np.where(scales > 0, scales, 1.0)
    result, scratch = np.empty(len(lows)), np.empty_like(values)
    for index, (scale, zero) in enumerate(zip(scales, zeros, strict=True)):  # one range at a time stays in the cache
        np.divide(values, scale, out=scratch)
        np.rint(scratch, out=scratch)
        np.maximum(scratch, levels[0] - zero, out=scratch)
        np.minimum(scratch, levels[1] - zero, out=scratch)
        np.multiply(scratch, scale, out=scratch)
        result[index] = _squared(scratch, values, shares)
        if clip_weight > 1:
            np.maximum(values, lows[index], out=scratch)
            np.minimum(scratch, highs[index], out=scratch)
            result[index] += (clip_weight - 1) * _squared(scratch, values, shares)
    return result


def _squared(found: Float64Array, values: Float64Array, shares: Float64Array) -> float:
    """Return the expected squared difference, and overwrite `found`."""
    found -= values
    found *= found
    return float(found @ shares)
