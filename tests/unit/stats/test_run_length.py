"""The number of neighbouring blocks drawn together: few if they are independent, many if they drift."""

import math

import numpy as np
import pytest

from emca_deploy.stats.estimates import median_ci
from emca_deploy.stats.run_length import block_levels, run_length
from zoo.levels import wandering


def test_independent_blocks_keep_the_least():
    rng = np.random.default_rng(0)
    lengths = [run_length(rng.standard_normal(216)) for _ in range(50)]
    assert np.median(lengths) == 6


def test_the_more_alike_the_longer_the_runs():
    rng = np.random.default_rng(1)
    medians = [np.median([run_length(wandering(rng, 300, alike)) for _ in range(50)]) for alike in (0.3, 0.6, 0.9)]
    assert medians[0] < medians[1] < medians[2]
    # The optimum for a first-order autoregression is n^(1/3) (6 a^2 / (1 - a^2)^2)^(1/3), times `_MARGIN`; within a half.
    best = [3 * (300 * 6 * alike**2 / (1 - alike**2) ** 2) ** (1 / 3) for alike in (0.6, 0.9)]
    assert medians[1:] == pytest.approx(best, rel=0.5)


@pytest.mark.parametrize("count", [1, 2, 5, 12, 40])
def test_there_are_always_a_few_runs(count):
    steps = np.repeat([0.0, 1.0], [count // 2, count - count // 2])
    assert 1 <= run_length(steps) <= max(2, count // 4)
    assert 1 <= run_length(np.zeros(count)) <= max(2, count // 4)


def test_builds_that_differ_for_good_are_not_alike_neighbours():
    rng = np.random.default_rng(2)
    builds = [0] * 100 + [1] * 100
    blocks = [np.full(5, (1.0 + build) * math.exp(0.01 * rng.standard_normal())) for build in builds]
    assert run_length(block_levels(blocks, builds)) < 15
    assert run_length(block_levels(blocks, None)) > 15


def test_an_empty_block_is_at_the_mean():
    blocks = [np.array([1.0]), np.array([]), np.array([math.e**2])]
    assert block_levels(blocks, None) == pytest.approx([-1, 0, 1])


def test_a_median_of_zero_is_at_the_mean_too():
    assert block_levels([np.array([0.0]), np.array([2.0])], None) == pytest.approx([0, 0])


def test_intervals_hold_the_truth_although_short_blocks_are_much_alike():
    rng = np.random.default_rng(3)
    covered = 0
    for run in range(100):
        low, high = median_ci([1 + 0.02 * level + 0.02 * rng.laplace(size=5) for level in wandering(rng, 200, 0.79)], run)
        covered += low <= 1 <= high
    assert covered >= 84
