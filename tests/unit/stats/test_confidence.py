from math import comb, log
from statistics import NormalDist

import numpy as np
import pytest

from emca_deploy.stats.between_runs import spread_between_runs
from emca_deploy.stats.confidence import (
    calls_needed,
    cluster_of_blocks,
    exceedance_interval,
    mean_interval,
    percentile_bound,
    percentile_interval,
    rescaled,
    share_interval,
    t_quantile,
    widened,
)
from emca_deploy.stats.estimates import paired_difference_ci
from emca_deploy.stats.sequential import interval_at_look, values_needed


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 318.309), (2, 22.327), (3, 10.215), (5, 5.893), (7, 4.785), (11, 4.025), (30, 3.385)]
)
def test_quantiles_of_students_t(degrees, quantile):
    assert t_quantile(0.999, degrees) == pytest.approx(quantile, rel=0.035)


def test_a_share_has_the_interval_of_clopper_and_pearson():
    assert share_interval(0, 10, 0.95) == (0.0, pytest.approx(0.3085, abs=1e-4))
    assert share_interval(10, 10, 0.95) == (pytest.approx(0.6915, abs=1e-4), 1.0)
    assert share_interval(8, 10, 0.95) == pytest.approx((0.4439, 0.9748), abs=1e-4)


def test_an_interval_at_another_confidence_grows_on_both_sides():
    low, high = rescaled(2.0, (1.9, 2.2), 10**6, 0.998)
    factor = NormalDist().inv_cdf(0.999) / NormalDist().inv_cdf(0.975)
    assert (low, high) == pytest.approx((2 * (1.9 / 2) ** factor, 2 * (2.2 / 2) ** factor), rel=1e-6)
    assert rescaled(2.0, (1.9, 2.2), 10**6, 0.95) == pytest.approx((1.9, 2.2))


def test_a_spread_widens_an_interval():
    assert widened(1.0, (0.9, 1.1), 0.0, 0, 0.998) == pytest.approx((0.9, 1.1))
    low, high = widened(1.0, (1.0, 1.0), 0.01, 0, 0.998)
    assert (low, high) == pytest.approx((np.exp(-0.0309), np.exp(0.0309)), rel=1e-4)
    assert widened(1.0, (0.9, 1.1), 0.01, 5, 0.998)[1] > widened(1.0, (0.9, 1.1), 0.01, 0, 0.998)[1] > 1.1


def test_tangos_interval_at_a_higher_confidence_contains_the_lower_one():
    inner, outer = paired_difference_ci(12, 5, 2000), paired_difference_ci(12, 5, 2000, 0.998)
    assert outer[0] < inner[0] < inner[1] < outer[1]


def runs_of(rng, clusters, level_deviation, calls=2000):
    """Blocks of 20 calls whose level is that of their process."""
    levels = rng.normal(0, level_deviation, clusters)
    processes = [index % clusters for index in range(calls // 20)]
    return [np.exp(levels[each] + rng.normal(0, 0.1, 20)) for each in processes], processes


@pytest.mark.parametrize("level_deviation", [0.0, 0.05])
def test_intervals_of_a_percentile_contain_the_true_one(level_deviation):
    rng = np.random.default_rng(3)
    true = float(np.exp(NormalDist(0, (0.1**2 + level_deviation**2) ** 0.5).inv_cdf(0.9)))
    inside = 0
    for _ in range(150):
        blocks, processes = runs_of(rng, 12, level_deviation)
        value, (low, high) = percentile_interval(blocks, 90.0, 0.95, processes)
        assert low is None or low <= value
        assert high is None or value <= high
        inside += (low is None or low <= true) and (high is None or true <= high)
    assert inside >= 134  # 95 % nominal; 134 of 150 is below the 0.1 % quantile of Bin(150, 0.95)


def test_few_processes_are_split_into_runs():
    blocks = list(np.random.default_rng(0).random((40, 5)))
    assert sorted(set(cluster_of_blocks(blocks, [index % 4 for index in range(40)]))) == [0, 1, 2, 3]
    clusters = cluster_of_blocks(blocks, [index % 2 for index in range(40)])
    assert len(set(clusters)) > 6
    assert not set(clusters[::2]) & set(clusters[1::2])
    assert cluster_of_blocks(blocks, None) == sorted(cluster_of_blocks(blocks, None))


def test_few_calls_do_not_bound_a_high_percentile():
    blocks = list(np.random.default_rng(0).random((30, 10)))
    _, (low, high) = percentile_interval(blocks, 99.0, 0.998)
    assert high is None
    assert low is not None
    factor = calls_needed(blocks, 99.0, 2.0, 0.998)
    assert factor is not None
    assert factor > 688 / 300  # 0.99 ** 688 is 0.001
    enough = list(np.random.default_rng(0).random((30 * int(factor * 2), 10)))
    _, (_, high) = percentile_interval(enough, 99.0, 0.998)
    assert high is not None


@pytest.mark.parametrize(("percent", "fewest"), [(90, 29), (95, 59), (99, 299), (99.9, 2995)])
def test_a_percentile_has_a_bound_from_the_smallest_number_of_calls(percent, fewest):
    calls = np.arange(1.0, fewest + 1)
    assert percentile_bound(calls, percent) == fewest
    assert percentile_bound(calls[1:], percent) is None


def test_the_bound_is_the_smallest_order_statistic_that_is_likely_enough():
    for calls in (100, 473, 1000):
        rank = int(percentile_bound(np.arange(1.0, calls + 1), 90))
        chances = [sum(comb(calls, k) * 0.9**k * 0.1 ** (calls - k) for k in range(most)) for most in (rank - 1, rank)]
        assert chances[0] < 0.95 <= chances[1]


def test_the_bound_of_p99_is_right_as_often_as_it_says():
    rng = np.random.default_rng(0)
    right = sum(percentile_bound(np.sort(rng.exponential(size=2000)), 99) >= -log(0.01) for _ in range(1000))
    assert 935 <= right < 1000


def test_the_interval_of_a_share_holds_it_where_values_come_in_bursts():
    rng = np.random.default_rng(0)
    held = plain = 0
    for _ in range(60):
        bursts = np.repeat(rng.random(20 * 6) < 0.2, 5).reshape(20, 30)  # late frames come in fives, a fifth of the time
        blocks = [np.where(late & (rng.random(30) < 0.5), 30.0, rng.uniform(5, 20, 30)) for late in bursts]
        share, (low, high) = exceedance_interval(blocks, 20.0)
        held += low <= 0.1 <= high
        low, high = share_interval(round(600 * share), 600, 0.95)
        plain += low <= 0.1 <= high
    assert held >= 54
    assert plain < held
    assert exceedance_interval([np.ones(30)] * 20, 20.0)[1][0] == 0
    assert exceedance_interval([np.full(30, 25.0)] * 20, 20.0)[1][1] == 1


def test_a_mean_over_clusters():
    values = np.array([1.0, 3.0, 2.0, 4.0, 3.0, 5.0])
    mean, low, high = mean_interval(values, [0, 0, 1, 1, 2, 2], 0.95)
    assert mean == 3.0
    assert (high - mean, mean - low) == pytest.approx((4.3027 / 3**0.5,) * 2, rel=1e-2)
    assert mean_interval(values, [0] * 6, 0.95)[1:] == (float("-inf"), float("inf"))


@pytest.mark.parametrize("deviation", [0.5, 2.0])
def test_the_sequential_interval_holds_at_every_look(deviation):
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(300):
        values = rng.normal(1.0, deviation, 40)
        looks = [interval_at_look(values[: 4 * look], look, 0.9) for look in range(1, 11)]
        missed += any(not low <= 1.0 <= high for _, low, high in looks)
    assert missed <= 45  # at most 10 % nominal, 30 of 300; 45 is above the 99.7 % quantile
    assert missed > 0


def test_the_values_that_a_decision_needs():
    needed = values_needed(2.0, 2.0, 8, 0.998)
    assert needed == 24
    values = np.tile([-2.0, 2.0], needed // 2)
    assert [interval_at_look(list(values)[: 8 * look], look, 0.998)[2] < 2.0 for look in (1, 2, 3)] == [False, False, True]
    assert values_needed(0.0, 1.0, 8, 0.998) is None
    assert interval_at_look([1.0], 1, 0.998)[2] == float("inf")


def test_the_spread_between_runs_ignores_a_lasting_change():
    rng = np.random.default_rng(0)
    runs = np.exp(rng.normal(0, 0.02, 400))
    runs[200:] *= 1.3
    deviation, degrees = spread_between_runs([list(runs[:150]), list(runs[150:])])
    assert deviation == pytest.approx(0.02, rel=0.2)
    assert 200 < degrees < 399
    assert spread_between_runs([[1.0], []]) == (0.0, 0)
