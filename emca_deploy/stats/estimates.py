"""Statistics of latencies and paired accuracies, in numpy only.

Percentiles are order statistics (nearest rank): always a measured value, never one between two.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float64Array
from emca_deploy.stats.run_length import block_levels, run_length

__all__ = ["median_ci", "paired_difference_ci", "percentile", "ratio_of_medians", "student_t_quantile"]

RESAMPLES = 1000
_FEWEST_BLOCKS = 5


def percentile(ordered: Float64Array, percent: float) -> float:
    """Return the nearest-rank percentile: the smallest value with at least `percent` % of the data at or below it.

    `ordered` is ascending, (n,) float64, n >= 1; `percent` is in (0, 100].
    """
    rank = ceil(round(percent / 100 * len(ordered), 9))  # rounded: 0.999 * 1000 is 999.0000000000001 in floating point
    return float(ordered[max(rank, 1) - 1])


def student_t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t by the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5).

    For a probability of 97.5 % it is within 1 % of the exact value from 4 degrees of freedom.
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

    Whole blocks are resampled, because calls close in time are similar. Below 5 blocks the interval is that of the order
    statistics of independent calls, which is too narrow where calls depend on each other. `processes` is the process of each
    block, where there are several: processes are resampled first, then their blocks.
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
    """Return the ratio of two medians, and its 95 % interval by resampling rounds.

    Paired: block i of one side was measured next to block i of the other, and both sides use the same resampled rounds. Not
    paired: the sides are of different runs, are resampled separately and may differ in length. `processes` is as in `median_ci`,
    for each side; where both sides have the same, the processes ran together and are resampled together.
    """
    above, below = _Pooled.of(numerator), _Pooled.of(denominator)
    ratio = above.median() / below.median()
    if min(len(numerator), len(denominator)) < _FEWEST_BLOCKS:
        (a_low, a_high), (b_low, b_high) = median_ci(numerator, seed, processes[0]), median_ci(denominator, seed, processes[1])
        return ratio, (a_low / b_high, a_high / b_low)
    rng = np.random.default_rng(seed)
    levels = [block_levels(blocks, of) for blocks, of in zip((numerator, denominator), processes, strict=True)]
    # A change that both sides of a pair share does not affect their ratio.
    lengths = [run_length(levels[0] - levels[1])] * 2 if paired else [run_length(level) for level in levels]
    rounds = _resampled_blocks(len(numerator), lengths[0], rng)
    others = rounds if paired else _resampled_blocks(len(denominator), lengths[1], rng)
    side_by_side = paired and processes[0] is not None and processes[1] is not None and list(processes[0]) == list(processes[1])
    first = _of_processes(rounds, processes[0], rng)
    second = first if side_by_side else _of_processes(others, processes[1], rng)
    ratios = above.medians(first) / below.medians(second)
    clusters = min(_clusters(len(numerator), lengths[0], processes[0]), _clusters(len(denominator), lengths[1], processes[1]))
    return ratio, _expanded_interval(np.sort(ratios), clusters)


def paired_difference_ci(only_first: int, only_second: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of (only_first - only_second) / total, paired proportions, by Tango's score method.

    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
    Statistics in Medicine 17 (1998). It needs only the discordant counts, and has width even where both are zero. `only_first`
    is the number of items that count for the first and not for the second; `only_second` is the reverse.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
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
    """Find by bisection where the score, which falls from `low` to `high`, reaches `level`."""
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
    """All measurements in ascending order, each with the number of its block.

    Attributes:
        values: Ascending, (n,).
        block: Block of each value, (n,), padded with the last one to a multiple of the stride.
        before: Number of values of each block among the first 0, 32, 64, ..., (rows, blocks); float64 for BLAS.
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

    def median(self) -> float:
        """Return the nearest-rank median of all measurements."""
        return float(self.medians(np.ones((1, self.before.shape[1]), dtype=np.int64))[0])

    def medians(self, counts: npt.NDArray[np.int64]) -> Float64Array:
        """Return the nearest-rank median of each resample, (resamples,), in which block i occurs counts[r, i] times.

        The stride with the median is found first, for all resamples at once, then the value within it.
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


def _resampled_blocks(blocks: int, length: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return how often each block is drawn in each resample, (RESAMPLES, blocks), in circular runs of `length`.

    D. Politis and J. Romano, "A circular block-resampling procedure for stationary data" (1992).
    """
    starts = rng.multinomial(-(-blocks // length), np.full(blocks, 1 / blocks), size=RESAMPLES)
    counts = np.zeros((RESAMPLES, blocks), np.int64)
    for shift in range(length):
        counts += np.roll(starts, shift, axis=1)
    return counts


def _clusters(blocks: int, length: int, processes: Sequence[int] | None) -> int:
    """Return the number of independent draws: of processes, where there are several, else of runs of blocks."""
    distinct = len(set(processes)) if processes is not None else 1
    runs = round(blocks / length)
    return min(distinct, runs) if distinct > 1 else runs


def _of_processes(
    counts: npt.NDArray[np.int64], processes: Sequence[int] | None, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return the counts of blocks times how often each block's process is drawn; unchanged for one process."""
    if processes is None or len(set(processes)) < 2:
        return counts
    _, of_block = np.unique(np.asarray(processes), return_inverse=True)
    distinct = int(of_block.max()) + 1
    drawn = rng.multinomial(distinct, np.full(distinct, 1 / distinct), size=RESAMPLES).astype(np.int64)[:, of_block]
    both = counts * drawn
    empty = both.sum(axis=1) == 0  # no block of a drawn process: take all blocks of the drawn processes
    both[empty] = drawn[empty]
    return both


def _expanded_interval(ordered: Float64Array, blocks: int) -> tuple[float, float]:
    """Return the percentile interval, widened for few blocks in the way of Student's t.

    T. Hesterberg, "What Teachers Should Know About the Bootstrap" (The American Statistician 69, 2015), expanded percentiles.
    """
    tail = NormalDist().cdf(-sqrt(blocks / (blocks - 1)) * student_t_quantile(0.975, blocks - 1))
    last = len(ordered) - 1
    low = int(tail * last)
    return float(ordered[low]), float(ordered[last - low])


def _order_statistics_ci(ordered: Float64Array) -> tuple[float, float]:
    """Return the order statistics that contain the median with at least 95 %, by the binomial distribution.

    Fewer than 6 values cannot reach 95 %: their whole range is returned.
    """
    count = len(ordered)
    reach = NormalDist().inv_cdf(0.975) * sqrt(count) / 2
    low = max(int(count / 2 - reach) - 1, 0)  # rounded outwards: never narrower than the exact interval
    return float(ordered[low]), float(ordered[count - 1 - low])
