"""Frames at a rate: the times of an open loop, what marks a run as not valid, and the search for the highest rate."""

import itertools
import os
import signal
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from emca_deploy.harness.measure import pacing
from emca_deploy.harness.measure.latency import Protocol, measure, measuring
from emca_deploy.harness.measure.pacing import Frames, pace
from emca_deploy.harness.measure.raw_samples import read_raw, write_raw
from emca_deploy.harness.measure.worker import Worker
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.latency import ProfileReport

PACED = Protocol("paced", warmup_s=0.1, block_s=1.0, duration_s=5.0)


def fake(latency_ms, name="a"):
    """Return a candidate of the package's own fake backend."""
    artifact = f"fake:latency_ms={latency_ms}"
    return RunnerSpec(name, kwargs={"backend": "fake", "artifact": artifact}, artifact=artifact, backend="fake")


@pytest.fixture
def clock(monkeypatch):
    """Replace the pacer's clock by one that moves only in `passes`, in sleeps, and 1 us at each reading."""
    now = SimpleNamespace(ns=0, late_s=itertools.repeat(0.0))

    def passes(seconds):
        now.ns += round(seconds * 1e9)

    def read():
        now.ns += 1000
        return now.ns

    monkeypatch.setattr(pacing, "perf_counter_ns", read)
    monkeypatch.setattr(pacing, "sleep", lambda seconds: passes(seconds + next(now.late_s)))
    now.passes = passes
    return now


def test_a_late_frame_waits_and_none_is_skipped(clock):
    calls = iter([0.005, 0.025, 0.005, 0.005])
    found = pace(lambda: clock.passes(next(calls)), 100, 4)
    assert np.diff(found.due_ns).tolist() == [10_000_000] * 3
    assert found.latency_ms == pytest.approx([5, 25, 20, 15], abs=0.02)
    assert found.service_ms == pytest.approx([5, 25, 5, 5], abs=0.02)
    assert found.overruns.tolist() == [False, True, True, True]
    assert found.pacer_delay_ms.max() < 0.02  # the runner is busy, so the pacer is not late


def test_frames_due_while_the_pacer_is_stopped_count_as_late_starts(clock):
    clock.late_s = itertools.chain([0.0, 0.0, 0.095], itertools.repeat(0.0))
    found = pace(lambda: clock.passes(0.001), 100, 20)
    late = found.pacer_delay_ms > pacing.LATE_MS
    # The third wakes up 94.8 ms late; the queue behind it is worked off 9 ms a frame.
    assert np.flatnonzero(late).tolist() == list(range(2, 13))


def test_a_sleep_ends_early_enough_to_spin(clock):
    clock.late_s = itertools.repeat(0.0001)
    assert pace(lambda: None, 100, 5).pacer_delay_ms.max() < 0.01


@pytest.mark.usefixtures("in_process")
def test_each_rate_has_its_own_result(tmp_path):
    protocol = replace(PACED, rates=(20.0, 50.0, 200.0), deadline_ms=15.0)
    with measuring([fake(10)], protocol) as run:
        pass
    report, (raw,) = run.report(), run.raw().candidates
    (result,) = report.results
    assert np.unique(raw.frame_rates).tolist() == [20, 50, 200]
    assert raw.frames_ns.shape == (len(raw.frame_blocks), 3) == (sum(each.frames for each in result.paced), 3)
    assert (np.diff(raw.frames_ns, axis=1) >= 0).all()
    write_raw(tmp_path / "raw.npz", run.raw())
    assert np.array_equal(read_raw(tmp_path / "raw.npz").candidates[0].frames_ns, raw.frames_ns)
    assert (result.scenario, result.samples) == ("paced", sum(result.block_calls))
    assert result.latency_ms.p50 == pytest.approx(10, abs=0.1)
    slow, fast, flooded = result.paced
    assert [each.rate_per_s for each in result.paced] == [20, 50, 200]
    assert slow.frames == pytest.approx(100, abs=25)
    for each in (slow, fast):
        assert each.latency_ms.p99 == pytest.approx(10, abs=0.1)
        assert each.idle_to_busy == pytest.approx(1, abs=0.01)
        assert (each.overruns, each.late_starts, each.valid, each.misses.frames) == (0, 0, True, 0)
    assert fast.busy_share == pytest.approx(0.5, abs=0.01)
    # Twice as many frames as it answers: each is 5 ms later than the one before, and none is left out.
    assert flooded.busy_share == pytest.approx(2, abs=0.01)
    assert flooded.overruns == flooded.frames
    assert flooded.latency_ms.max > 500
    assert flooded.misses.share > 0.95
    assert any("200 frames/s" in warning for warning in result.warnings)
    assert result.stable
    assert from_json(ProfileReport, to_json(report)) == report


@pytest.mark.usefixtures("in_process")
def test_the_search_finds_the_highest_rate():
    protocol = replace(PACED, deadline_ms=20.0)
    busy, slow = measure([fake(10, "a"), fake(30, "b")], protocol).results
    assert 97 < busy.highest_rate.rate_per_s < 100.5
    assert len(busy.highest_rate.tried_per_s) == 8
    confirmed = next(each for each in busy.paced if each.rate_per_s == busy.highest_rate.rate_per_s)
    assert confirmed.frames >= 2995
    assert busy.highest_rate.shown
    assert confirmed.latency_ms.p99_9_upper95 <= 20
    assert (slow.highest_rate.rate_per_s, slow.highest_rate.tried_per_s, slow.paced) == (None, (), ())


@pytest.mark.usefixtures("in_process")
def test_too_few_frames_show_no_bound():
    (result,) = measure([fake(10)], replace(PACED, duration_s=1.0, block_s=0.2, deadline_ms=20.0)).results
    assert result.highest_rate.rate_per_s > 90
    assert not result.highest_rate.shown


def test_a_stopped_process_makes_the_result_invalid():
    stops = []

    def stop(done, total):
        if done == 1:
            pid = stops[0].pid
            threading.Timer(0.1, os.kill, (pid, signal.SIGSTOP)).start()
            threading.Timer(0.3, os.kill, (pid, signal.SIGCONT)).start()

    class Known(Worker):
        def __enter__(self):
            stops.append(self)
            return super().__enter__()

    protocol = replace(PACED, rates=(100.0,), block_s=0.4, duration_s=0.8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emca_deploy.harness.measure.starting.Worker", Known)
        (result,) = measure([fake(1)], protocol, stop, keep_going=True).results
    (paced,) = result.paced
    assert not paced.valid
    assert paced.late_starts > 0.01 * paced.frames
    assert not result.stable
    assert any(warning.startswith("not valid at 100 frames/s") for warning in result.warnings)


def test_an_undisturbed_queue_is_never_the_pacers_fault():
    rng = np.random.default_rng(0)
    due = np.arange(1, 2001) * 10_000_000
    service, free, starts = rng.exponential(9e6, 2000).astype(np.int64), 0, []
    for frame in range(2000):
        starts.append(max(int(due[frame]), free))
        free = starts[-1] + int(service[frame])
    start = np.array(starts)
    assert Frames(due, start, start + service, 1e7).pacer_delay_ms.max() == 0
