"""Simulated levels of blocks: each is correlated with the one before, as on a real machine."""

import math

import numpy as np

__all__ = ["wandering"]


def wandering(rng, count, alike):
    """Return drifting levels, (count,), from a first-order autoregression of mean 0 and variance 1."""
    levels, level = np.empty(count), rng.standard_normal()
    for index in range(count):
        level = alike * level + math.sqrt(1 - alike**2) * rng.standard_normal()
        levels[index] = level
    return levels
