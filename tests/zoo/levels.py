"""Levels of blocks as a machine shows them: each is like the one before."""

import math

import numpy as np

__all__ = ["wandering"]


def wandering(rng, count, alike):
    """Return levels that wander, (count,), as a first-order autoregression of mean 0 and variance 1."""
    levels, level = np.empty(count), rng.standard_normal()
    for index in range(count):
        level = alike * level + math.sqrt(1 - alike**2) * rng.standard_normal()
        levels[index] = level
    return levels
