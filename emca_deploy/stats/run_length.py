"""The number of neighbouring blocks that the bootstrap draws together: as many as are correlated in a measurement.

A varying clock makes neighbouring blocks similar. Drawn one by one, they would count as independent, and intervals would be too
narrow. Source: D. Politis and H. White, "Automatic block-length selection for the dependent bootstrap" (2004), as corrected by
A. Patton, D. Politis and H. White (2009), for the circular block bootstrap.
"""

from collections.abc import Sequence
from math import ceil, log10, sqrt

import numpy as np

from emca_deploy.arrays import Float64Array

__all__ = ["block_levels", "run_length"]

_SIGNIFICANT = 2.0
"""Number of standard errors that a correlation must reach to count; Politis and White's c."""

_MARGIN = 3.0
"""Factor on the best length for estimating a variance, since few blocks underestimate correlations. With 100 blocks whose
neighbours correlate by 0.79, 87 % of the intervals contained the true value without it and 93 % with it (nominal 95 %)."""

_FEWEST_RUNS = 4
"""Fewer runs than this would not show how runs differ."""


def block_levels(blocks: Sequence[Float64Array], processes: Sequence[int] | None) -> Float64Array:
    """Return the logarithm of each block's median minus the mean of its process, (blocks,); 0 for an empty block.

    A lasting difference between processes that take turns does not make neighbouring blocks similar.
    """
    medians = np.array([np.median(block) if len(block) else np.nan for block in blocks])
    levels = np.log(medians, out=np.full(len(blocks), np.nan), where=medians > 0)
    of_block = np.zeros(len(blocks), np.int64) if processes is None else np.asarray(processes)
    for process in np.unique(of_block):
        own = of_block == process
        known = levels[own & ~np.isnan(levels)]
        levels[own] -= known.mean() if len(known) else 0.0
    return np.asarray(np.nan_to_num(levels))


def run_length(levels: Float64Array) -> int:
    """Return how many neighbours to draw together: between n^(1/3), rounded down, and n / 4, for n >= 1 blocks in time order."""
    count = len(levels)
    fewest = int(round(count ** (1 / 3), 9))
    most = max(fewest, count // _FEWEST_RUNS)
    if most == fewest:
        return fewest
    alike = _autocovariances(levels, most)
    reach = _reach(alike, count)
    if reach == 0:
        return fewest
    lags = np.arange(1, min(2 * reach, most) + 1)
    weights = np.clip(2 * (1 - lags / (2 * reach)), 0.0, 1.0)
    spread = alike[0] + 2 * float(weights @ alike[lags])
    slope = 2 * float((weights * lags) @ alike[lags])
    if spread <= 0 or slope <= 0:  # neighbours are not similar
        return fewest
    best = (1.5 * (slope / spread) ** 2 * count) ** (1 / 3)
    return int(np.clip(ceil(_MARGIN * best), fewest, most))


def _autocovariances(levels: Float64Array, most: int) -> Float64Array:
    """Return the autocovariances at lags 0 to `most`, (most + 1,)."""
    centred = levels - levels.mean()
    return np.array([centred[: len(centred) - lag] @ centred[lag:] for lag in range(most + 1)]) / len(centred)


def _reach(alike: Float64Array, count: int) -> int:
    """Return the lag after which several correlations in a row do not differ from zero; the longest lag if there is none."""
    if alike[0] <= 0:
        return 0
    small = np.abs(alike[1:] / alike[0]) < _SIGNIFICANT * sqrt(log10(count) / count)
    in_a_row = max(5, ceil(sqrt(log10(count))))
    for lag in range(len(small)):
        if small[lag : lag + in_a_row].all():
            return lag
    return len(small)
