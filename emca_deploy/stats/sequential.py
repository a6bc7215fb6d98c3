"""An interval of a mean that stays valid although it is looked at several times."""

from collections.abc import Sequence
from math import inf, sqrt

import numpy as np

from emca_deploy.stats.confidence import t_quantile

__all__ = ["interval_at_look", "values_needed"]

_MOST = 10_000


def interval_at_look(values: Sequence[float], look: int, confidence: float) -> tuple[float, float, float]:
    """Return the mean of normally distributed values, and the ends of its interval by Student's t, infinite where too few.

    With the stated confidence, the intervals at looks 1, 2, 3, ... all contain the true mean: look k gets 1 / (k (k + 1)) of the
    error, and these shares add up to 1 over all looks (Bonferroni).

    Args:
        values: All values until now.
        look: Number of this look, from 1. When to look next must not depend on the values.
        confidence: Chance that all looks together are right, 0 to 1.
    """
    count, mean = len(values), float(np.mean(values)) if len(values) else 0.0
    half = float(np.std(values, ddof=1)) * _half_width(count, look, confidence) if count > 1 else inf
    return mean, mean - half, mean + half


def _half_width(count: int, look: int, confidence: float) -> float:
    """Return half the interval's width in standard deviations."""
    error = (1 - confidence) / (look * (look + 1))
    return t_quantile(1 - error / 2, count - 1) / sqrt(count)


def values_needed(distance: float, deviation: float, each_look: int, confidence: float) -> int | None:
    """Return how many values, `each_look` a look, make half the interval's width smaller than `distance`; None above 10,000."""
    for look in range(1, _MOST // each_look + 1):
        if deviation * _half_width(look * each_look, look, confidence) < distance:
            return look * each_look
    return None
