"""Blocks, warm-up and accounting of a run, on the simulated clock where the times are exact."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.artifacts import TensorSpec
from emca_deploy.errors import ModelError
from emca_deploy.harness.measure import latency
from emca_deploy.harness.measure.candidate import Process
from emca_deploy.harness.measure.hook import Telemetry
from emca_deploy.harness.measure.latency import Protocol, measure, measuring
from emca_deploy.harness.measure.worker import Opened, Prepared, Worker
from emca_deploy.harness.spec import RunnerSpec

QUICK = Protocol(warmup_s=0.1, block_s=0.02, duration_s=0.2)


def fake(name, **settings):
    artifact = "fake:" + ",".join(f"{key}={value}" for key, value in {"latency_ms": 1, **settings}.items())
    return RunnerSpec(name, kwargs={"backend": "fake", "artifact": artifact}, artifact=artifact, backend="fake")


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("latency_ms", "warmup_s", "calls", "seconds"),
    [(1, 0.1, 10, 0.01), (100, 0.5, 6, 0.6), (1, 0.0, 0, 0.0), (1, 2.0, 200, 0.2)],
)
def test_warm_up_ends_when_two_windows_agree(latency_ms, warmup_s, calls, seconds):
    (result,) = measure([fake("a", latency_ms=latency_ms)], replace(QUICK, warmup_s=warmup_s)).results
    warm_up = result.protocol.warm_up
    assert (warm_up.settled, warm_up.calls, warm_up.windows) == (True, calls, 2 if calls else 0)
    assert warm_up.seconds == pytest.approx(seconds, abs=0.003)
    assert warm_up.seconds == round(warm_up.seconds, 3)


@pytest.mark.parametrize(("second", "windows"), [(1.019, 2), (1.021, 3), (0.981, 2), (0.979, 3)])
def test_windows_agree_within_two_percent(monkeypatch, make_spec, second, windows):
    medians = iter([1.0, second, second])
    monkeypatch.setattr(Worker, "block", lambda self, *arguments: np.full(3, next(medians) * 1e6))
    any_ = TensorSpec("x", "float32", (1,))
    process = Process(Worker(make_spec()), Opened(any_, any_, 1.0), Prepared(1.0))
    process.run_warm_up(1.0)
    assert process.warm_up.windows == windows
    assert process.warmup_ms == pytest.approx([1.0, second, second][:windows])


@pytest.mark.usefixtures("in_process")
def test_blocks_last_three_to_five_quarters_of_their_nominal_time():
    with measuring([fake("a")], replace(QUICK, duration_s=1.0)) as run:
        pass
    (samples,) = run.raw().candidates
    lengths_ms = np.diff(samples.windows_ns, axis=1).ravel() / 1e6
    assert len(lengths_ms) == 50
    assert 15 <= lengths_ms.min() < 17
    assert 24 < lengths_ms.max() < 27  # the last call may begin just before the end


@pytest.mark.usefixtures("in_process")
def test_the_most_samples_are_spread_over_all_rounds():
    (result,) = measure([fake("a", latency_ms=0.1)], replace(QUICK, max_samples=50)).results
    assert result.block_calls == (5,) * 10
    (result,) = measure([fake("a", latency_ms=0.1)], replace(QUICK, max_samples=50, max_duration_s=1.0)).results
    assert set(result.block_calls) == {1}


@pytest.mark.parametrize("others", [0, 1])
def test_one_call_leads_into_a_block_where_others_ran_in_between(make_spec, others):
    gpu = replace(make_spec("gpu", latency_s=0.001), factory="harness_runners:make_device")
    with measuring([gpu, *[make_spec("cpu", latency_s=0.001)] * others], QUICK) as run:
        pass
    samples = run.raw().candidates[0]
    numbers = np.split(samples.device_ms, np.cumsum(samples.block_calls)[:-1])
    gaps = {int(after[0] - before[-1]) for before, after in itertools.pairwise(numbers)}
    assert gaps == {1 + others}  # the runner numbers its calls


class Counting(Telemetry):
    """Telemetry without sources that keeps what it is asked for."""

    def end(self, name_to_windows, name_to_inferences):
        self.inferences = dict(name_to_inferences)
        return super().end(name_to_windows, name_to_inferences)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("others", "lead_calls"), [(0, 0), (1, 1)])
def test_energy_is_shared_by_all_calls_of_the_windows(others, lead_calls):
    with Counting([], idle_s=0) as telemetry:
        first, *_ = measure([fake("a"), fake("b")][: 1 + others], replace(QUICK, batch=3), telemetry=telemetry).results
    assert telemetry.inferences["a"] == 3 * (first.samples + lead_calls * 10)


@pytest.mark.usefixtures("in_process")
def test_processor_time_of_the_run_is_that_of_its_processes_alone(monkeypatch):
    """On the simulated clock a worker is busy all the time; what was used before the run is not counted."""
    own_s = []
    monkeypatch.setattr(latency, "changes_between", lambda before, after, own_cpu_s: own_s.append(own_cpu_s) or ["a change"])
    long = replace(QUICK, duration_s=40.0, block_s=4.0)
    report = measure([fake("a", latency_ms=100), fake("b", latency_ms=100)], long)
    (first,) = own_s
    run_s = sum(sum(result.samples_ms) for result in report.results) / 1000
    assert run_s < first < 2.2 * run_s  # while one is measured, the clock of the other advances too
    assert all(result.warnings[0] == "a change" and not result.stable for result in report.results)
    measure([fake("a", latency_ms=100), fake("b", latency_ms=100)], replace(long, processes=2))
    assert own_s[1] < 5 * run_s  # and not the time of the four that are loaded before


@pytest.mark.usefixtures("in_process")
def test_a_candidate_that_fails_is_abandoned_at_once(monkeypatch):
    left, abandon = [], Worker.abandon
    monkeypatch.setattr(Worker, "abandon", lambda self: (left.append(self.spec.name), abandon(self)))
    with measuring([fake("good"), fake("bad", fail_at=30)], QUICK, keep_going=True) as run:
        assert left == ["bad"]
        assert run.report().results[0].peak_rss_mib > 5  # known before the process ends
    assert left == ["bad"]


@pytest.mark.usefixtures("in_process")
def test_where_all_fail_while_they_are_measured_the_first_error_is_raised():
    with refusing(ModelError, "fail_at="):
        measure([fake("early", fail_at=30), fake("late", fail_at=31)], QUICK, keep_going=True)


def test_what_fails_while_closing_is_noted(make_spec):
    first, second = measure([make_spec("a", does="refuse to close"), make_spec("b")], QUICK).results
    assert any("cannot be closed" in warning for warning in first.warnings)
    assert (first.stable, any("clos" in warning for warning in second.warnings)) == (False, False)
