"""The range that loses the least information, by NVIDIA's method."""

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.calibration.ranges.histogram import BINS, Histogram
from emca_deploy.calibration.ranges.methods.base import HistogramMethod
from emca_deploy.calibration.ranges.observers import TensorRange

__all__ = ["Entropy"]

LEVELS = 128
"""Number of magnitudes of a symmetric INT8 tensor in this method."""

ENTROPY_BINS = 2048


class Entropy(HistogramMethod):
    """The magnitude to clip at with which 8-bit values lose the least information.

    For every i from 128 to the number of bins, P is the first i bins of the magnitudes, with all beyond added to the last, and Q
    the same bins without what is beyond, averaged over 128 levels of i / 128 bins, empty bins left out. The i with the smallest
    KL divergence of Q from P is chosen, the largest of equals; an i where Q is zero and P is not is excluded. The first bin, full
    of ReLU's zeros, counts as much as the second.
    """

    name = "entropy"

    def from_histogram(self, histogram: Histogram) -> TensorRange:
        """Return the range within the threshold."""
        threshold = _threshold(histogram)
        return TensorRange(max(histogram.minimum, -threshold), min(histogram.maximum, threshold), threshold)


def _threshold(histogram: Histogram) -> float:
    largest = max(-histogram.minimum, histogram.maximum)
    counts = histogram.magnitudes().reshape(ENTROPY_BINS, -1).sum(axis=1).astype(np.float64)
    width = histogram.width * (BINS // ENTROPY_BINS)
    bins = int(np.flatnonzero(counts)[-1]) + 1
    if bins <= LEVELS:  # a tensor of zeros, or of the smallest numbers there are
        return largest
    divergences = _divergences(counts[:bins])
    if not np.isfinite(divergences).any():
        return largest
    best = len(divergences) - 1 - int(np.argmin(divergences[::-1]))
    return min((best + LEVELS) * width, largest)


def _divergences(counts: Float64Array) -> Float64Array:
    """Return the KL divergence for every clipping point from LEVELS bins to all, (len(counts) - LEVELS + 1,).

    Sums over bins are differences of running sums: each costs a pass over the levels, not over the bins.
    """
    counts = counts.copy()
    counts[0] = counts[1]
    total = counts.sum()
    if total == 0:
        return np.full(len(counts) - LEVELS + 1, np.inf)
    ends = np.arange(LEVELS, len(counts) + 1)
    edges = np.arange(LEVELS + 1) * ends[:, None] // LEVELS
    mass = np.concatenate([[0.0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    own = np.concatenate([[0.0], np.cumsum(_x_log_x(counts))])
    level_mass, level_filled = np.diff(mass[edges], axis=1), np.diff(filled[edges], axis=1)
    level_log = np.log(np.divide(level_mass, level_filled, out=np.ones_like(level_mass), where=level_filled > 0))
    last, beyond = counts[ends - 1], total - mass[ends]
    sum_p_log_p = own[ends] - _x_log_x(last) + _x_log_x(last + beyond)
    sum_p_log_q = (level_mass * level_log).sum(axis=1) + beyond * level_log[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        divergences = (sum_p_log_p - sum_p_log_q) / total + np.log(mass[ends] / total)
    impossible = ((last == 0) & (beyond > 0)) | (mass[ends] == 0)
    return np.where(impossible, np.inf, divergences)


def _x_log_x(values: Float64Array) -> Float64Array:
    return values * np.log(np.where(values > 0, values, 1.0))
