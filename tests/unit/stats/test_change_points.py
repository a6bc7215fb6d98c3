import numpy as np
import pytest

from emca_deploy.stats.change_points import change_points


def test_a_change_is_found_with_its_size_and_place():
    rng = np.random.default_rng(0)
    values = [*rng.normal(5.0, 0.1, 15), *rng.normal(6.0, 0.1, 12)]
    (found,) = change_points(values)
    assert found.index == 15
    assert found.earliest <= 15 <= found.latest
    assert found.latest - found.earliest <= 4
    assert (found.before, found.after) == pytest.approx((5.0, 6.0), abs=0.1)
    assert found.size_ci95[0] < 1.0 < found.size_ci95[1]


def test_several_changes_are_found_in_order():
    rng = np.random.default_rng(1)
    values = [*rng.normal(5, 0.1, 12), *rng.normal(7, 0.1, 12), *rng.normal(6, 0.1, 12)]
    assert [found.index for found in change_points(values)] == [12, 24]


def test_few_series_without_a_change_show_one():
    rng = np.random.default_rng(2)
    assert sum(bool(change_points(rng.normal(5, 0.1, 20))) for _ in range(60)) <= 4  # 1 % nominal; 4 of 60 has 0.3 %


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0], [4.0] * 30, [1.0, 1.0, 2.0, 2.0]])
def test_too_few_or_equal_values_show_none(values):
    assert change_points(values) == []


def test_an_exact_step_is_found():
    (found,) = change_points([1.0] * 10 + [2.0] * 10)
    assert (found.index, found.size, found.size_ci95) == (10, 1.0, (1.0, 1.0))
