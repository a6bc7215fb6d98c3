"""Finds lasting changes in a series of figures, each with intervals of its size and of its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, inf, sqrt

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.stats.confidence import t_quantile

__all__ = ["ChangePoint", "change_points"]

_LEAST = 2
"""Values before and after a change: a single value may be an outlier."""

_PERMUTATIONS = 999
_SIGNIFICANT = 0.01
_LARGEST = 1e150
"""Squares of larger values overflow."""

_PLACE = 11.0
"""Bai's 95 % quantile of the distance of an estimated change from the true one, in units of (deviation / change)^2."""


@dataclass(frozen=True)
class ChangePoint:
    """A lasting change of the mean.

    Attributes:
        index: Index of the first value after the change.
        earliest: Smallest index in the 95 % interval of `index`.
        latest: Largest index in that interval.
        before: Mean of the values since the change before.
        after: Mean of the values until the next change.
        size: `after` minus `before`.
        size_ci95: 95 % interval of `size` by Welch's t.
    """

    index: int
    earliest: int
    latest: int
    before: float
    after: float
    size: float
    size_ci95: tuple[float, float]


def change_points(values: Sequence[float], seed: int = 0) -> list[ChangePoint]:
    """Return the changes of a series, in its order.

    Binary segmentation (L. Vostrikova, "Detecting 'disorder' in multidimensional random processes", 1981): the split with the
    largest t statistic counts if fewer than 1 % of random orders of the values have one as large (D. Matteson and N. James, "A
    nonparametric approach for multiple change point analysis", 2014). Both parts are then split again. The interval of the place
    is that of J. Bai, "Estimation of a change point in multiple regression models" (1997).
    """
    series = np.asarray(values, np.float64)
    if np.abs(series).max(initial=0.0) > _LARGEST:
        return []
    cuts = sorted(_cuts(series, 0, len(series), np.random.default_rng(seed)))
    bounds = [0, *cuts, len(series)]
    return [_change(series, *bounds[place : place + 3]) for place in range(len(cuts))]


def _cuts(series: Float64Array, start: int, end: int, rng: np.random.Generator) -> list[int]:
    part = series[start:end]
    if len(part) < 2 * _LEAST:
        return []
    statistics = _t_statistics(part[None])[0]
    orders = np.array([rng.permutation(part) for _ in range(_PERMUTATIONS)])
    as_large = int((_t_statistics(orders).max(axis=1) >= statistics.max()).sum())
    if (as_large + 1) / (_PERMUTATIONS + 1) > _SIGNIFICANT or statistics.max() == 0:
        return []
    cut = start + _LEAST + int(statistics.argmax())
    return [*_cuts(series, start, cut, rng), cut, *_cuts(series, cut, end, rng)]


def _t_statistics(rows: Float64Array) -> Float64Array:
    """Return the absolute t statistic of each possible split of each row, (rows, n) -> (rows, n - 2 * least + 1)."""
    count = rows.shape[1]
    before = np.arange(_LEAST, count - _LEAST + 1)
    sums, squares = np.cumsum(rows, axis=1), np.cumsum(rows**2, axis=1)
    left, total = sums[:, before - 1], sums[:, -1:]
    difference = left / before - (total - left) / (count - before)
    within = squares[:, -1:] - left**2 / before - (total - left) ** 2 / (count - before)
    scale = np.sqrt(
        np.maximum(within, 1e-12 * squares[:, -1:] + 1e-300) / max(1, count - 2) * (1 / before + 1 / (count - before))
    )
    return np.asarray(np.abs(difference) / scale)


def _change(series: Float64Array, start: int, cut: int, end: int) -> ChangePoint:
    left, right = series[start:cut], series[cut:end]
    size = float(right.mean() - left.mean())
    errors = [float(side.var(ddof=1)) / len(side) for side in (left, right)]
    error = sum(errors)
    spread = sum(each**2 / (len(side) - 1) for each, side in zip(errors, (left, right), strict=True))
    degrees = max(1, floor(error**2 / spread)) if spread > 0 else 1
    half = t_quantile(0.975, degrees) * sqrt(error)
    pooled = float(((left - left.mean()) ** 2).sum() + ((right - right.mean()) ** 2).sum()) / max(1, end - start - 2)
    reach = floor(_PLACE * pooled / size**2) + 1 if size else inf
    earliest, latest = max(start + 1, cut - reach), min(end - 1, cut + reach)
    return ChangePoint(cut, int(earliest), int(latest), float(left.mean()), float(right.mean()), size, (size - half, size + half))
