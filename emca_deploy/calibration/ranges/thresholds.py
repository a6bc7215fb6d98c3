"""From what was seen of a tensor to the range its integers represent: the calibration methods. Pure numpy."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.calibration.ranges.histogram import BINS, Histogram
from emca_deploy.calibration.ranges.observers import Observation, TensorRange
from emca_deploy.errors import InputError, UnknownNameError

__all__ = ["METHODS", "Method", "choose_range", "entropy_threshold", "expected_error", "mse_range", "percentile_range"]

LEVELS = 128
"""Magnitudes of a symmetric INT8 tensor, as the entropy method counts them."""

ENTROPY_BINS = 2048
CANDIDATES = 128
"""Clipping points that the search for the least squared error tries on each end, evenly spaced up to the end itself."""

SWEEPS = 4
"""Times that search goes over both ends; it stops where nothing improves, usually after two."""

METHODS: dict[str, float | None] = {
    "minmax": None,
    "moving-average": 0.9,
    "percentile": 99.99,
    "entropy": None,
    "mse": None,
}
"""Every method with its parameter's default: the momentum of the moving average, the percentile in percent."""


@dataclass(frozen=True)
class Method:
    """How ranges come from values.

    Attributes:
        name: one of `METHODS`.
        parameter: the momentum or percentile; None for a method without one.
    """

    name: str
    parameter: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Read "mse" or "percentile:99.9".

        Raises:
            InputError: no such method, or a parameter that is out of range or that the method does not have.
        """
        name, _, given = text.partition(":")
        if name not in METHODS:
            raise UnknownNameError.of("calibration method", name, METHODS, f"one of: {', '.join(METHODS)}")
        default = METHODS[name]
        if not given:
            return cls(name, default)
        if default is None:
            raise InputError(f"--method {text}: {name} has no parameter", f"write {name}")
        low, high = (0.0, 1.0) if name == "moving-average" else (50.0, 100.0)
        try:
            parameter = float(given)
        except ValueError:
            parameter = np.nan
        if not low <= parameter <= high or (name == "moving-average" and parameter == high):
            raise InputError(f"--method {text}: '{given}' is not within {low:g} and {high:g}", f"write {name}:{default}")
        return cls(name, parameter)

    def __str__(self) -> str:
        """Return the text that `parse` reads; equal methods have equal texts."""
        return self.name if self.parameter is None else f"{self.name}:{self.parameter!r}"

    @property
    def needs_histogram(self) -> bool:
        """Whether a histogram is needed, not only smallest and largest values."""
        return self.name in {"percentile", "entropy", "mse"}


def choose_range(method: Method, seen: Observation) -> TensorRange:
    """Return a tensor's range by a method.

    Raises:
        ValueError: what the method needs was not kept.
    """
    if method.name == "minmax":
        return TensorRange(seen.minimum, seen.maximum)
    if method.name == "moving-average":
        if seen.average is None:
            raise ValueError("no moving average was kept")
        return TensorRange(*seen.average)
    if seen.histogram is None:
        raise ValueError("no histogram was kept")
    if method.name == "percentile":
        return percentile_range(seen.histogram, method.parameter or 100.0)
    if method.name == "entropy":
        threshold = entropy_threshold(seen.histogram)
        return TensorRange(max(seen.minimum, -threshold), min(seen.maximum, threshold), threshold)
    return mse_range(seen.histogram)


def percentile_range(histogram: Histogram, percentile: float) -> TensorRange:
    """Return the range beyond whose ends at most (100 - percentile) percent of all values lie, at each; 100 is min-max.

    The symmetric threshold is the percentile of the magnitudes. Each is exact to one bin.
    """
    share = percentile / 100
    # From below, rank ceil((1 - p) n) counts from the other end: what is cut off there is at most (1 - p) n as well.
    low = -Histogram(histogram.exponent, histogram.counts[::-1], -histogram.maximum, -histogram.minimum).quantile(share)
    return TensorRange(low + 0.0, histogram.quantile(share), histogram.magnitude_quantile(share))


def entropy_threshold(histogram: Histogram) -> float:
    """Return the magnitude to clip at so that 8-bit values lose the least information, as NVIDIA describes it.

    For every i from 128 to the number of bins: P is the first i bins of the magnitudes with all beyond added to the last, Q the
    same bins (without what is beyond) averaged over 128 levels, empty bins left out; the i of the least KL divergence
    of Q from P wins, the largest of equals. The first bin, full of ReLU's zeros, counts as much as the second. Levels take
    i / 128 bins each, to the nearest bin. A threshold at which Q is zero where P is not does not stand for election.
    """
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

    Sums over bins become differences of running sums, so that each costs a pass over the levels, not over the bins.
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


def mse_range(histogram: Histogram) -> TensorRange:
    """Return the range of the least expected squared error of quantizing, for uint8 with a zero point and for int8 without.

    Min-max is among the candidates, so neither is ever worse than it on the histogram.
    """
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    magnitude = max(-low, high)
    shares = np.arange(1, CANDIDATES + 1) / CANDIDATES
    filled = histogram.counts > 0
    error = partial(expected_error, histogram.centres()[filled], histogram.counts[filled] / histogram.count)
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
    """Return the candidate of the least error, the largest of equals: it clips least."""
    return float(candidates[len(errors) - 1 - int(np.argmin(errors[::-1]))])


def expected_error(
    values: Float64Array, shares: Float64Array, lows: Float64Array, highs: Float64Array, *, symmetric: bool
) -> Float64Array:
    """Return the expected squared error of quantizing values to each of several ranges.

    Args:
        values: (n,).
        shares: of each value among all, (n,).
        lows: of each range, at most 0, (m,).
        highs: of each range, at least 0, (m,).
        symmetric: int8 in [-127, 127] to the larger end, instead of uint8 with a zero point.

    Returns:
        Of each range, float64 (m,).
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
    return result
