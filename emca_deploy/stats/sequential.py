"""An interval of a mean that stays valid however often it is looked at, and whenever the measuring stops."""

from collections.abc import Sequence
from math import exp, inf, log, sqrt

import numpy as np

__all__ = ["always_valid_interval", "values_needed"]

_PRIOR_VALUES = 0.5
"""Weight of the prior, in values: the interval is narrowest, compared with others, at about 10 to 30 values."""


def always_valid_interval(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Return the mean of normally distributed values, and the ends of its confidence sequence, infinite where too few.

    With the stated confidence, the intervals after 1, 2, 3, ... values all contain the true mean. Source: the t-test with a
    normal prior on the mean in standard deviations. Its Bayes factor is a martingale, which exceeds 1 / (1 - confidence) with at
    most the remaining probability (T. Lai, "On confidence sequences", Annals of Statistics 4, 1976; H. Wang and A. Ramdas,
    "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance", 2024).
    """
    count, mean = len(values), float(np.mean(values)) if len(values) else 0.0
    half = float(np.std(values)) * _half_width(count, confidence) if count > 1 else inf
    return mean, mean - half, mean + half


def _half_width(count: int, confidence: float) -> float:
    """Return half the interval's width in standard deviations (those that divide by the number of values)."""
    prior = _PRIOR_VALUES
    bound = exp(2 / count * (log(1 / (1 - confidence)) + log((count + prior) / prior) / 2))
    room = 1 - bound * prior / (count + prior)
    return sqrt((bound - 1) / room) if room > 0 else inf


def values_needed(distance: float, deviation: float, confidence: float) -> int | None:
    """Return how many values make half the interval's width smaller than `distance`; None where more than 10,000."""
    count = 2
    while count <= 10_000:
        if deviation * _half_width(count, confidence) < distance:
            return count
        count += max(1, count // 20)
    return None
