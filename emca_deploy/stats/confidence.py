"""Intervals at any confidence: of percentiles, shares and means of correlated values, and from 95 % intervals.

Calls that are close in time, or of one process, are similar. They count as clusters: processes where there are at least
`FEWEST_PROCESSES`, else runs of neighbouring blocks of each process (`run_length`).
"""

from collections.abc import Sequence
from math import ceil, exp, floor, log, pi, sqrt, tan
from statistics import NormalDist

import numpy as np

from emca_deploy.arrays import Float64Array
from emca_deploy.stats.estimates import percentile, student_t_quantile
from emca_deploy.stats.run_length import block_levels, run_length

__all__ = [
    "FEWEST_PROCESSES",
    "Ends",
    "calls_needed",
    "cluster_of_blocks",
    "exceedance_interval",
    "mean_interval",
    "percentile_bound",
    "percentile_interval",
    "rescaled",
    "share_interval",
    "t_quantile",
    "widened",
]

FEWEST_PROCESSES = 4
"""Fewer processes say too little about how processes differ."""

Ends = tuple[float | None, float | None]
"""Lower and upper end of an interval; None where the values bound it on no side."""

_MOST = 10**4
"""Largest factor on the number of calls that is worth suggesting."""


def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t; exact for 1 and 2 degrees of freedom, where the expansion is poor."""
    if degrees <= 1:
        return tan(pi * (probability - 0.5))
    if degrees == 2:
        return (2 * probability - 1) * sqrt(2 / (4 * probability * (1 - probability)))
    return student_t_quantile(probability, degrees)


def rescaled(estimate: float, ci95: tuple[float, float], degrees: int, confidence: float) -> tuple[float, float]:
    """Return the interval at another confidence that belongs to a 95 % interval of a positive estimate.

    Both halves of the interval's logarithm grow as quantiles of Student's t with so many degrees of freedom do.
    """
    factor = t_quantile((1 + confidence) / 2, degrees) / t_quantile(0.975, degrees)
    low, high = (_bounded(factor * log(end / estimate)) if end > 0 else -_LARGEST for end in ci95)
    return estimate * exp(low), estimate * exp(high)


_LARGEST = 50.0
"""Logarithm of a ratio that stands for no bound."""


def _bounded(exponent: float) -> float:
    return min(max(exponent, -_LARGEST), _LARGEST)


def widened(estimate: float, limits: tuple[float, float], spread: float, degrees: int, confidence: float) -> tuple[float, float]:
    """Return an interval that also contains an independent, normally distributed error of the estimate's logarithm.

    `spread` is the standard deviation of that error. `degrees` are its degrees of freedom; 0 means that it is known exactly.
    """
    quantile = NormalDist().inv_cdf((1 + confidence) / 2) if degrees == 0 else t_quantile((1 + confidence) / 2, degrees)
    low, high = (sqrt(log(end / estimate) ** 2 + (quantile * spread) ** 2) for end in limits)
    return estimate * exp(-_bounded(low)), estimate * exp(_bounded(high))


def cluster_of_blocks(blocks: Sequence[Float64Array], processes: Sequence[int] | None) -> list[int]:
    """Return the number of each block's cluster, from 0."""
    of = np.zeros(len(blocks), np.int64) if processes is None else np.unique(np.asarray(processes), return_inverse=True)[1]
    if len(set(of.tolist())) >= FEWEST_PROCESSES:
        return [int(process) for process in of]
    cluster, number = np.zeros(len(blocks), np.int64), 0
    for process in np.unique(of):
        own = np.flatnonzero(of == process)
        length = run_length(block_levels([blocks[index] for index in own.tolist()], None))
        runs = max(1, len(own) // length)
        cluster[own] = number + np.minimum(np.arange(len(own)) // length, runs - 1)
        number += runs
    return [int(each) for each in cluster]


def percentile_interval(
    blocks: Sequence[Float64Array], percent: float, confidence: float, processes: Sequence[int] | None = None
) -> tuple[float, Ends]:
    """Return a percentile of all blocks together, and its interval of order statistics.

    The calls count as fewer independent ones, by the variance of the share of calls above the percentile between clusters, and by
    Student's t for few clusters. Source: E. Korn and B. Graubard, "Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data" (Survey Methodology 24, 1998).
    """
    ordered = np.sort(np.concatenate(blocks))
    value = percentile(ordered, percent)
    count, above = len(ordered), 1 - percent / 100
    cumulative = _binomial_cdf(_independent_calls(blocks, value, above, confidence, processes), above)
    most_few, least_many = _decisive_counts(cumulative, confidence)
    calls = len(cumulative) - 1
    high = None if most_few < 0 else float(ordered[count - 1 - floor(most_few * count / calls)])
    needed = ceil(least_many * count / calls)
    low = None if least_many > calls else float(ordered[count - needed])
    return value, (low if low is None else min(low, value), high if high is None else max(high, value))


def percentile_bound(ordered: Float64Array, percent: float, confidence: float = 0.95) -> float | None:
    """Return the value that a percentile is at most with a confidence, or None where there are too few calls.

    It is the smallest order statistic with at least that chance to be above the percentile, if calls are independent: MLPerf's
    arithmetic for stopping early. At 95 %, p90 needs 29 calls, p95 59, p99 299 and p99.9 2,995.

    `ordered` is ascending, (n,) float64, n >= 1; `percent` is in (0, 100).
    """
    # The k-th smallest is above the percentile if at most k - 1 calls are below it.
    rank = int(np.searchsorted(_binomial_cdf(len(ordered), percent / 100)[:-1], confidence)) + 1
    return None if rank > len(ordered) else float(ordered[rank - 1])


def calls_needed(
    blocks: Sequence[Float64Array], percent: float, limit: float, confidence: float, processes: Sequence[int] | None = None
) -> float | None:
    """Return how many times as many calls would show on which side of `limit` a percentile is; None where too many."""
    values = np.concatenate(blocks)
    above = 1 - percent / 100
    calls = _independent_calls(blocks, percentile(np.sort(values), percent), above, confidence, processes)
    share = float((values > limit).mean())
    if share == above:
        return None

    def decided(factor: float) -> bool:
        few, many = _decisive_counts(_binomial_cdf(round(calls * factor), above), confidence)
        return round(calls * factor * share) <= few if share < above else round(calls * factor * share) >= many

    low, high = 1.0, 2.0
    while not decided(high):
        low, high = high, high * 2
        if high * calls > _MOST * 100 or high > _MOST:
            return None
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def share_interval(count: int, total: int, confidence: float) -> tuple[float, float]:
    """Return the interval of a share, 0 to 1, by C. Clopper and E. Pearson (Biometrika 26, 1934)."""
    tail = (1 - confidence) / 2

    def root(reached: float, at: int) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if _binomial_cdf(total, middle)[at] > reached else (low, middle)
        return (low + high) / 2

    return (root(1 - tail, count - 1) if count > 0 else 0.0), (root(tail, count) if count < total else 1.0)


_LARGEST_VALUES = 20


def exceedance_interval(
    blocks: Sequence[Float64Array], limit: float, confidence: float = 0.95, processes: Sequence[int] | None = None
) -> tuple[float, tuple[float, float]]:
    """Return the share of all values above a limit, 0 to 1, and its interval by Clopper and Pearson.

    The values count as fewer independent ones, as in `percentile_interval`. Few of them above the limit do not show how similar
    neighbours are, so the largest 20 count too.
    """
    values = np.sort(np.concatenate(blocks))
    share = float((values > limit).mean())
    largest = min(_LARGEST_VALUES, len(values) - 1)
    levels = [(float(values[-1 - largest]), largest / len(values)), *([(limit, share)] if 0 < share < 1 else [])]
    calls = min(_independent_calls(blocks, level, above, confidence, processes) for level, above in levels)
    low, high = (
        share_interval(floor(share * calls), calls, confidence)[0],
        share_interval(ceil(share * calls), calls, confidence)[1],
    )
    return share, (low, high)


def mean_interval(values: Float64Array, clusters: Sequence[int], confidence: float) -> tuple[float, float, float]:
    """Return the mean of the clusters' means, and the ends of its interval by Student's t."""
    of = np.asarray(clusters)
    means = np.array([values[of == each].mean() for each in np.unique(of)])
    mean = float(means.mean())
    if len(means) < 2:
        return mean, float("-inf"), float("inf")
    half = t_quantile((1 + confidence) / 2, len(means) - 1) * float(means.std(ddof=1)) / sqrt(len(means))
    return mean, mean - half, mean + half


def _independent_calls(
    blocks: Sequence[Float64Array], value: float, above: float, confidence: float, processes: Sequence[int] | None
) -> int:
    """Return how many independent calls tell as much about the share of calls above a value, at least 1."""
    cluster = np.asarray(cluster_of_blocks(blocks, processes))
    number = int(cluster.max()) + 1
    sizes = np.bincount(cluster, [len(block) for block in blocks], number)
    over = np.bincount(cluster, [float((block > value).sum()) for block in blocks], number)
    total = float(sizes.sum())
    if number < 2:
        return max(1, int(total / len(blocks)))
    excess = over - over.sum() / total * sizes
    variance = number / (number - 1) * float(excess @ excess) / total**2
    effect = max(1.0, variance / (above * (1 - above) / total))
    tail = (1 + confidence) / 2
    few = (t_quantile(tail, number - 1) / NormalDist().inv_cdf(tail)) ** 2
    return max(1, int(total / (effect * few)))


def _binomial_cdf(total: int, share: float) -> Float64Array:
    """Return P(X <= k) for k = 0 to `total`, (total + 1,)."""
    if share <= 0:
        return np.ones(total + 1)
    if share >= 1:
        return np.append(np.zeros(total), 1.0)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    counts = np.arange(total + 1)
    chances = np.exp(logs[-1] - logs - logs[::-1] + counts * log(share) + (total - counts) * np.log1p(-share))
    return np.asarray(np.minimum(np.cumsum(chances), 1.0))


def _decisive_counts(cumulative: Float64Array, confidence: float) -> tuple[int, int]:
    """Return the most calls above a limit that show the percentile below it (-1: none), and the least that show it above."""
    tail = (1 - confidence) / 2
    few = int(np.searchsorted(cumulative, tail, side="right")) - 1
    many = int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    return few, many
