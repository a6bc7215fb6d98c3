"""The stopping rule and its effect on the interval's coverage, on simulated runs."""

from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest

from emca_deploy.harness.measure import starting
from emca_deploy.harness.measure.protocol import Protocol
from emca_deploy.harness.measure.rounds import planned_looks, precise
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.stats.estimates import median_ci, ratio_of_medians
from zoo.levels import wandering


@pytest.mark.parametrize(
    ("first", "last", "looks"),
    [(20, 120, (20, 30, 45, 68, 101)), (1, 20, (10, 15)), (10, 10, ()), (30, 10, ())],
)
def test_looks_are_few_planned_and_never_early(first, last, looks):
    assert planned_looks(first, last) == looks


def test_precise_is_about_both_sides_of_the_median():
    assert precise([np.full(10, 2.0)] * 20, 0.001, 0)
    rng = np.random.default_rng(0)
    assert not precise([2 + rng.standard_normal(10) for _ in range(20)], 0.001, 0)


@pytest.fixture
def drifting_run():
    """Return a function that makes blocks of long-tailed calls around a drifting level; the true median is 1."""

    def make(rng, rounds, calls=20):
        return [1 + 0.02 * level + 0.02 * rng.laplace(size=calls) for level in wandering(rng, rounds, 0.3)]

    return make


def test_stopping_by_the_interval_leaves_it_its_coverage(drifting_run):
    """Runs that stop by `reason_to_stop`, at the first planned look whose interval is within 1 %."""
    rng = np.random.default_rng(1)
    looks = (*planned_looks(20, 120), 120)
    covered, stopped_early, runs = 0, 0, 120
    for run in range(runs):
        blocks = drifting_run(rng, 120)
        rounds = next((look for look in looks if precise(blocks[:look], 0.01, run)), 120)
        low, high = median_ci(blocks[:rounds], run)
        covered += low <= 1 <= high
        stopped_early += rounds < 120
    assert stopped_early > runs / 4  # the rule took effect
    assert 0.87 <= covered / runs <= 0.99


def test_interval_of_the_ratio_of_runs_measured_apart_covers_the_truth(drifting_run):
    rng = np.random.default_rng(2)
    covered, runs = 0, 120
    for run in range(runs):
        a, b = [2 * block for block in drifting_run(rng, 24)], drifting_run(rng, 30)
        _, (low, high) = ratio_of_medians(a, b, run, paired=False)
        covered += low <= 2 <= high
    assert 0.87 <= covered / runs <= 0.99


def test_interval_over_builds_covers_what_another_build_would_have():
    """Processes differ by 3 %: if they were not resampled, the interval would contain the true value in a third of the runs."""
    rng = np.random.default_rng(3)
    covered, naive, runs = 0, 0, 120
    for run in range(runs):
        offsets = 0.03 * rng.standard_normal(5)
        builds = [index % 5 for index in range(40)]
        blocks = [1 + offsets[build] + 0.01 * rng.standard_normal(20) for build in builds]
        low, high = median_ci(blocks, run, builds)
        covered += low <= 1 <= high
        low, high = median_ci(blocks, run)
        naive += low <= 1 <= high
    assert naive / runs < 0.7
    assert 0.85 <= covered / runs <= 1.0


def test_a_single_build_is_resampled_as_none_is():
    rng = np.random.default_rng(4)
    blocks = [rng.random(9) for _ in range(12)]
    assert median_ci(blocks, 5, [0] * 12) == median_ci(blocks, 5)


def test_ratio_of_runs_of_different_lengths():
    rng = np.random.default_rng(5)
    a, b = [3 + 0.01 * rng.random(5) for _ in range(7)], [1 + 0.01 * rng.random(5) for _ in range(11)]
    ratio, (low, high) = ratio_of_medians(a, b, paired=False)
    assert low <= ratio <= high
    assert ratio == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize(("each_mib", "free_mib", "fit"), [(None, 1e6, 1), (10.0, None, 1), (10.0, 1.0, 1), (10.0, 100.0, 2)])
def test_as_many_processes_as_half_of_the_free_memory_holds(monkeypatch, each_mib, free_mib, fit):
    monkeypatch.setattr(starting, "peak_rss_mib", lambda pid: each_mib)
    monkeypatch.setattr(starting, "available_mib", lambda: free_mib)
    two = [RunnerSpec(name, "", {}) for name in ("a", "b")]
    processes = starting.Processes(two, Protocol(), ExitStack(), lambda *failure: None)
    assert processes._that_fit(SimpleNamespace(pid=1)) == fit
