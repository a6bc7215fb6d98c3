import itertools
import math

import numpy as np
import pytest

from emca_deploy.stats.estimates import median_ci, paired_difference_ci, percentile, ratio_of_medians, student_t_quantile


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 999, 1000, 1001])
@pytest.mark.parametrize("percent", [0.1, 50, 90, 95, 99, 99.9, 100])
def test_percentile_is_the_smallest_value_with_enough_of_the_data_at_or_below(count, percent):
    values = np.sort(np.random.default_rng(count).random(count))
    by_definition = next(v for i, v in enumerate(values, 1) if i * 1000 >= round(percent * 10) * count)
    assert percentile(values, percent) == by_definition


def test_student_t_agrees_with_tables():
    for degrees, table in [(4, 2.776), (9, 2.262), (19, 2.093), (100, 1.984)]:
        assert student_t_quantile(0.975, degrees) == pytest.approx(table, rel=0.005)


@pytest.mark.parametrize("sizes", [(3, 1, 8, 4), (1,), (32,), (33, 31), (40, 1, 90, 200)])
def test_resampled_medians_equal_those_of_the_blocks_written_out(sizes):
    from emca_deploy.stats.estimates import _Pooled

    rng = np.random.default_rng(0)
    blocks = [rng.random(size).round(1 + index) for index, size in enumerate(sizes)]  # including ties
    draws = [counts for counts in itertools.product(range(3), repeat=len(sizes)) if sum(counts)]
    medians = _Pooled.of(blocks).medians(np.array(draws))
    for counts, median in zip(draws, medians, strict=True):
        written_out = np.sort(np.concatenate([b for b, n in zip(blocks, counts, strict=True) for _ in range(n)]))
        assert median == percentile(written_out, 50)


def autocorrelated_blocks(rng, rounds=20, calls=40):
    """Each block has its own level, like a machine whose clock drifts; the long-run median is 1."""
    return [1 + 0.1 * rng.standard_normal() + 0.02 * rng.standard_normal(calls) for _ in range(rounds)]


def test_median_interval_covers_the_truth_although_calls_of_a_block_are_alike():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(100):
        low, high = median_ci(autocorrelated_blocks(rng), seed=trial)
        covered += low <= 1 <= high
    assert 0.88 <= covered / 100 <= 0.995


def test_median_interval_of_few_blocks_covers_independent_calls():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        low, high = median_ci([rng.exponential(size=15) for _ in range(3)])
        covered += low <= math.log(2) <= high
    assert covered / 400 >= 0.94


def test_median_interval_of_one_call_is_that_call():
    assert median_ci([np.array([2.5])]) == (2.5, 2.5)


def test_ratio_is_exact_where_both_drift_alike():
    rng = np.random.default_rng(3)
    base = autocorrelated_blocks(rng)
    ratio, (low, high) = ratio_of_medians([3 * block for block in base], base)
    assert ratio == pytest.approx(3)
    assert low == pytest.approx(3)
    assert high == pytest.approx(3)


def test_ratio_interval_covers_the_truth_and_is_narrow_by_pairing():
    rng = np.random.default_rng(4)
    covered = 0
    for trial in range(60):
        levels = 1 + 0.1 * rng.standard_normal(20)
        a = [2 * level + 0.1 * rng.standard_normal(30) for level in levels]
        b = [level + 0.05 * rng.standard_normal(30) for level in levels]
        _, (low, high) = ratio_of_medians(a, b, seed=trial)
        covered += low <= 2 <= high
    assert covered / 60 >= 0.85


def test_ratio_of_few_rounds_has_an_interval_around_it():
    rng = np.random.default_rng(5)
    ratio, (low, high) = ratio_of_medians([2 + rng.random(20)], [1 + rng.random(20)])
    assert low < ratio < high


def tango_by_definition(b, c, n, difference):
    """The score statistic, with the constrained maximum likelihood found by search instead of by its formula."""
    q21 = np.linspace(max(0.0, -difference), (1 - difference) / 2, 400_001)[1:-1]
    q12 = q21 + difference
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = (n - b - c) * np.log(1 - q12 - q21)
        likelihood += b * np.log(q12) if b else 0
        likelihood += c * np.log(q21) if c else 0
    best = q21[np.nanargmax(likelihood)]
    return (b - c - n * difference) / math.sqrt(n * (2 * best + difference * (1 - difference)))


@pytest.mark.parametrize(("b", "c", "n"), [(12, 5, 100), (5, 12, 100), (30, 30, 200), (3, 0, 50), (1, 1, 1000)])
def test_paired_interval_ends_where_the_score_reaches_its_quantile(b, c, n):
    low, high = paired_difference_ci(b, c, n)
    assert low < (b - c) / n < high
    assert tango_by_definition(b, c, n, low) == pytest.approx(1.95996, abs=0.01)
    assert tango_by_definition(b, c, n, high) == pytest.approx(-1.95996, abs=0.01)


def test_paired_interval_is_mirrored_when_the_roles_are():
    low, high = paired_difference_ci(9, 2, 300)
    assert paired_difference_ci(2, 9, 300) == pytest.approx((-high, -low), abs=1e-9)


def test_paired_interval_without_any_difference_still_has_width():
    low, high = paired_difference_ci(0, 0, 1000)
    assert low == pytest.approx(-high, abs=1e-9)
    assert 0.002 < high < 0.006  # z^2 / (n + z^2)


def test_paired_interval_excludes_zero_where_mcnemar_does():
    for b, c in itertools.product(range(12), repeat=2):
        if b + c:
            low, high = paired_difference_ci(b, c, 500)
            significant = abs(b - c) / math.sqrt(b + c) > 1.959964
            assert (low > 0 or high < 0) == significant, (b, c)


def test_paired_interval_covers_the_truth():
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(1000):
        _, first, second, _ = rng.multinomial(300, [0.85, 0.03, 0.02, 0.10])
        low, high = paired_difference_ci(int(first), int(second), 300)
        covered += low <= 0.01 <= high
    assert 0.93 <= covered / 1000 <= 0.975


@pytest.mark.parametrize(("b", "c"), [(10, 0), (0, 10), (5, 5)])
def test_paired_interval_where_all_items_are_discordant_stays_within_bounds(b, c):
    low, high = paired_difference_ci(b, c, 10)
    assert -1 <= low <= (b - c) / 10 <= high <= 1
