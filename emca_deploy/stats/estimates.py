"""Statistics of latencies and of paired accuracies, in numpy alone.

Percentiles are order statistics (nearest rank): a value that was measured, never one between two.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float64Array
from emca_deploy.stats.run_length import block_levels, run_length

__all__ = [
    "Float64Array",
    "median_ci",
    "paired_difference_ci",
    "percentile",
    "ratio_of_medians",
    "student_t_quantile",
]

RESAMPLES = 1000
_FEWEST_BLOCKS = 5


def percentile(ordered: Float64Array, percent: float) -> float:
    """Return the nearest-rank percentile: the smallest value with at least `percent` % of the data at or below it.

    `ordered` is ascending, (n,) float64, n >= 1; `percent` in (0, 100].
    """
    rank = ceil(round(percent / 100 * len(ordered), 9))  # rounded: 0.999 * 1000 is 999.0000000000001 in floating point
    return float(ordered[max(rank, 1) - 1])


def student_t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t, by the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5).

    Within 1 % at 97.5 % from 4 degrees of freedom on.
    """
    x = NormalDist().inv_cdf(probability)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / float(degrees) ** power for power, term in enumerate(terms, start=1))


def median_ci(blocks: Sequence[Float64Array], seed: int = 0, processes: Sequence[int] | None = None) -> tuple[float, float]:
    """Return a 95 % interval of the median of all blocks together.

    Whole blocks are resampled, because calls next to each other in time are alike. Below 5 blocks the interval is that of the
    order statistics of independent calls, which is too narrow where they are not. Where a candidate has several processes, they
    are resampled, then their blocks.
    """
    kept = [index for index, block in enumerate(blocks) if len(block)]
    blocks = [blocks[index] for index in kept]
    processes = None if processes is None else [processes[index] for index in kept]
    if len(blocks) < _FEWEST_BLOCKS:
        return _order_statistics_ci(np.sort(np.concatenate(blocks)))
    pooled = _Pooled.of(blocks)
    rng = np.random.default_rng(seed)
    length = run_length(block_levels(blocks, processes))
    medians = pooled.medians(_of_processes(_resampled_blocks(len(blocks), length, rng), processes, rng))
    return _expanded_interval(np.sort(medians), _clusters(len(blocks), length, processes))


def ratio_of_medians(
    numerator: Sequence[Float64Array],
    denominator: Sequence[Float64Array],
    seed: int = 0,
    *,
    paired: bool = True,
    processes: tuple[Sequence[int] | None, Sequence[int] | None] = (None, None),
) -> tuple[float, tuple[float, float]]:
    """Return the ratio of two medians, and its 95 % interval by resampling rounds, the same for both.

    Element i of one side was measured next to element i of the other, unless they are not paired: of different runs, their rounds
    are resampled apart and may differ in number. `processes` are as in `median_ci`, for each of the two; where both have the
    same, they lived side by side and are resampled together.
    """
    above, below = _Pooled.of(numerator), _Pooled.of(denominator)
    ratio = float(above.medians(_once(len(numerator)))[0] / below.medians(_once(len(denominator)))[0])
    if min(len(numerator), len(denominator)) < _FEWEST_BLOCKS:
        (a_low, a_high), (b_low, b_high) = median_ci(numerator, seed, processes[0]), median_ci(denominator, seed, processes[1])
        return ratio, (a_low / b_high, a_high / b_low)
    rng = np.random.default_rng(seed)
    levels = [block_levels(blocks, of) for blocks, of in zip((numerator, denominator), processes, strict=True)]
    # What both of a pair have in common is in neither's favour.
    lengths = [run_length(levels[0] - levels[1])] * 2 if paired else [run_length(level) for level in levels]
    rounds = _resampled_blocks(len(numerator), lengths[0], rng)
    others = rounds if paired else _resampled_blocks(len(denominator), lengths[1], rng)
    side_by_side = paired and processes[0] is not None and processes[1] is not None and list(processes[0]) == list(processes[1])
    first = _of_processes(rounds, processes[0], rng)
    second = first if side_by_side else _of_processes(others, processes[1], rng)
    ratios = above.medians(first) / below.medians(second)
    clusters = min(_clusters(len(numerator), lengths[0], processes[0]), _clusters(len(denominator), lengths[1], processes[1]))
    return ratio, _expanded_interval(np.sort(ratios), clusters)


def paired_difference_ci(only_first: int, only_second: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of (only_first - only_second) / total, paired proportions, by Tango's score method.

    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
    Statistics in Medicine 17 (1998). It needs the discordant counts only, and has width even where both are zero. `only_first`
    items count for the first and not for the second, `only_second` the other way round.
    """
    z = NormalDist().inv_cdf(0.975)
    estimate = (only_first - only_second) / total

    def score(difference: float) -> float:
        return _tango_score(only_first, only_second, total, difference)

    return _crossing(score, z, -1.0, estimate), _crossing(score, -z, estimate, 1.0)


def _tango_score(b: int, c: int, n: int, difference: float) -> float:
    linear = -b - c + (2 * n - b + c) * difference
    constant = -c * difference * (1 - difference)
    q = (sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    excess = b - c - n * difference
    if variance <= 0:
        return 0.0 if excess == 0 else float("inf") * excess
    return float(excess / sqrt(variance))


def _crossing(score: Callable[[float], float], level: float, low: float, high: float) -> float:
    """Bisect for where the score, which falls from `low` to `high`, passes `level`."""
    for _ in range(60):
        middle = (low + high) / 2
        if score(middle) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


_STRIDE = 32


@dataclass(frozen=True)
class _Pooled:
    """All measurements in order, each with its block's number.

    Attributes:
        values: ascending, (n,).
        block: block of each value, (n,), then the last one's again up to a multiple of the stride.
        before: how many of the first 0, 32, 64, ... values are each block's, (rows, blocks) float64: whole numbers, for BLAS.
    """

    values: Float64Array
    block: npt.NDArray[np.int64]
    before: Float64Array

    @classmethod
    def of(cls, blocks: Sequence[Float64Array]) -> "_Pooled":
        values = np.concatenate(blocks)
        block = np.repeat(np.arange(len(blocks)), [len(one) for one in blocks])
        order = np.argsort(values, kind="stable")
        block = block[order]
        rows = -(-len(values) // _STRIDE)
        cells = np.arange(len(values)) // _STRIDE * len(blocks) + block
        within = np.bincount(cells, minlength=rows * len(blocks)).reshape(rows, len(blocks))
        before = np.zeros((rows, len(blocks)))
        before[1:] = np.cumsum(within[:-1], axis=0)
        return cls(values[order], np.pad(block, (0, rows * _STRIDE - len(block)), mode="edge"), before)

    def medians(self, counts: npt.NDArray[np.int64]) -> Float64Array:
        """Return the nearest-rank median of each resample, (resamples,): of r, block i occurs counts[r, i] times.

        First the stride that holds it is found for all resamples at once, then the value within.
        """
        weight = counts @ self.before.T
        sizes = np.bincount(self.block[: len(self.values)], minlength=counts.shape[1])
        rank = (counts @ sizes + 1) // 2
        row = (weight < rank[:, None]).sum(axis=1) - 1
        each = np.arange(len(counts))
        places = row[:, None] * _STRIDE + np.arange(_STRIDE)
        reached = weight[each, row][:, None] + np.cumsum(counts[each[:, None], self.block[places]], axis=1)
        found: Float64Array = self.values[row * _STRIDE + (reached < rank[:, None]).sum(axis=1)]
        return found


def _once(blocks: int) -> npt.NDArray[np.int64]:
    return np.ones((1, blocks), dtype=np.int64)


def _resampled_counts(things: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return how often each of independent things is drawn in each resample, (RESAMPLES, things)."""
    return rng.multinomial(things, np.full(things, 1 / things), size=RESAMPLES).astype(np.int64)


def _resampled_blocks(blocks: int, length: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return how often each block is drawn in each resample, (RESAMPLES, blocks), in runs of `length` around the circle.

    D. Politis and J. Romano, "A circular block-resampling procedure for stationary data" (1992).
    """
    starts = rng.multinomial(-(-blocks // length), np.full(blocks, 1 / blocks), size=RESAMPLES)
    counts = np.zeros((RESAMPLES, blocks), np.int64)
    for shift in range(length):
        counts += np.roll(starts, shift, axis=1)
    return counts


def _clusters(blocks: int, length: int, processes: Sequence[int] | None) -> int:
    """Return how many independent things were drawn: the processes, where there are several, or the runs of blocks."""
    distinct = len(set(processes)) if processes is not None else 1
    runs = round(blocks / length)
    return min(distinct, runs) if distinct > 1 else runs


def _of_processes(
    counts: npt.NDArray[np.int64], processes: Sequence[int] | None, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return the counts of blocks, times how often each block's process is drawn; as they are for one process."""
    if processes is None or len(set(processes)) < 2:
        return counts
    _, of_block = np.unique(np.asarray(processes), return_inverse=True)
    drawn = _resampled_counts(int(of_block.max()) + 1, rng)[:, of_block]
    both = counts * drawn
    empty = both.sum(axis=1) == 0  # only blocks of the processes not drawn: all blocks of those that are
    both[empty] = drawn[empty]
    return both


def _expanded_interval(ordered: Float64Array, blocks: int) -> tuple[float, float]:
    """Return the percentile interval, widened for few blocks as Student's t is.

    T. Hesterberg, "What Teachers Should Know About the Bootstrap" (The American Statistician 69, 2015), expanded percentiles.
    """
    tail = NormalDist().cdf(-sqrt(blocks / (blocks - 1)) * student_t_quantile(0.975, blocks - 1))
    last = len(ordered) - 1
    low = int(tail * last)
    return float(ordered[low]), float(ordered[last - low])


def _order_statistics_ci(ordered: Float64Array) -> tuple[float, float]:
    """Return the interval between the order statistics that hold the median with at least 95 %, by the binomial distribution.

    Fewer than 6 values cannot reach 95 %: the whole range is returned.
    """
    count = len(ordered)
    reach = NormalDist().inv_cdf(0.975) * sqrt(count) / 2
    low = max(int(count / 2 - reach) - 1, 0)  # rounded outwards: never narrower than the exact one
    return float(ordered[low]), float(ordered[count - 1 - low])
