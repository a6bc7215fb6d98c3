"""The range with the smallest squared error."""

from functools import partial

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.methods.base import HistogramMethod
from emca_deploy.calibration.ranges.observers import TensorRange

__all__ = ["LeastSquaredError", "expected_error"]

CANDIDATES = 128
"""Clipping points that the search tries at each end, evenly spaced up to the end itself."""

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
        threshold = _least(magnitude * shares, error(-magnitude * shares, magnitude * shares, symmetric=True))
        best = float(error(np.array([low]), np.array([high]), symmetric=False)[0])
        for _ in range(SWEEPS):
            before = best
            for end in (0, 1):
                ends = np.array([[low], [high]]).repeat(CANDIDATES, axis=1)
                ends[end] = (histogram.minimum, histogram.maximum)[end] * shares
                if not ends[end].any() or (ends[end] > 0).any() != bool(end):
                    continue
                errors = error(ends[0], ends[1], symmetric=False)
                if errors.min() < best:
                    best = float(errors.min())
                    low, high = (_least(ends[0], errors), high) if end == 0 else (low, _least(ends[1], errors))
            if best == before:
                break
        return TensorRange(low, high, threshold)


def _least(candidates: Float64Array, errors: Float64Array) -> float:
    """Return the candidate with the smallest error; of equals the largest, which clips least."""
    return float(candidates[len(errors) - 1 - int(np.argmin(errors[::-1]))])


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
    else:
        scales = ((highs - lows) / 255).astype(np.float32).astype(np.float64)
        scales = np.where(scales > 0, scales, 1.0)
        zeros, levels = np.clip(np.rint(-lows / scales), 0, 255), (0.0, 255.0)
    scales = np.where(scales > 0, scales, 1.0)[:, None]
    quantized = np.clip(np.rint(values / scales) + zeros[:, None], *levels) - zeros[:, None]
    difference = quantized * scales - values
    result: Float64Array = (difference * difference) @ shares
    if clip_weight > 1:
        ends = (-np.maximum(-lows, highs), np.maximum(-lows, highs)) if symmetric else (lows, highs)
        beyond = values - np.clip(values, ends[0][:, None], ends[1][:, None])
        result += (clip_weight - 1) * ((beyond * beyond) @ shares)
    return result
