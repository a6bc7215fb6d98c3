"""How much the figures of one file differ between runs on one machine, beyond the interval of each run."""

from collections.abc import Sequence
from itertools import pairwise
from math import log, sqrt

__all__ = ["DEFAULT_SPREAD", "FEWEST_CHANGES", "PAIR_SPREAD", "spread_between_runs"]

FEWEST_CHANGES = 8
"""Fewer changes from run to run say too little about their spread."""

DEFAULT_SPREAD = 0.07
"""Standard deviation of the logarithm of the median latency between runs: 0.067 and 0.071 over two times 70 runs of one file on a
shared virtual machine (benchmarks/results/harness-tools-epyc-zen3-2core.json)."""

PAIR_SPREAD = 0.035
"""Standard deviation of the logarithm of the ratio of two processes whose blocks alternate: 0.033 and 0.037 over two times 70
pairs (in the same file)."""


def spread_between_runs(series: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Return the standard deviation of the figures' logarithm between runs, and its degrees of freedom (0 without a change).

    Each series has the figures of one file, in the order of the runs. Only differences of successive runs are used, so a lasting
    change counts once. Source: J. von Neumann et al., "The mean square successive difference" (Annals of Mathematical
    Statistics 12, 1941).
    """
    changes = [log(after / before) for runs in series for before, after in pairwise(runs)]
    if not changes:
        return 0.0, 0
    degrees = max(1, len(changes) * 2 // 3)  # successive differences share a run, and count for about two thirds
    return sqrt(sum(change**2 for change in changes) / len(changes) / 2), degrees
