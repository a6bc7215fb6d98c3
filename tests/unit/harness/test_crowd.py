"""Several calls at once in one process, and two candidates at once."""

from dataclasses import replace

import numpy as np
import pytest

from emca_deploy.errors import ModelError
from emca_deploy.harness.measure.crowd import call_at_once
from emca_deploy.harness.measure.crowd_summary import knee_of
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.latency import ProfileReport
from emca_deploy.results.load import CrowdLatency, LatencySummary

QUICK = Protocol(warmup_s=0.0, block_s=0.05, duration_s=0.3)
SUMMARY = LatencySummary(*[1.0] * 9, p50_ci95=(1.0, 1.0))


def fake(name="a", **settings):
    """Return a candidate of the package's own fake backend."""
    artifact = "fake:" + ",".join(f"{key}={value}" for key, value in settings.items())
    return RunnerSpec(name, kwargs={"backend": "fake", "artifact": artifact}, artifact=artifact, backend="fake")


@pytest.mark.usefixtures("in_threads")
def test_calls_overlap_in_threads_with_models_of_their_own():
    report = measure([fake(latency_ms=5)], replace(QUICK, concurrency=(1, 4)))
    (result,) = report.results
    single, four = result.concurrency
    assert (single.callers, four.callers, result.knee) == (1, 4, 4)
    assert four.calls > 1.5 * single.calls  # they sleep, so four at once make four times as many
    assert four.throughput_images_per_s > 1.5 * single.throughput_images_per_s
    assert four.latency_ms.min >= 5
    assert len(result.block_calls) == 6
    assert from_json(ProfileReport, to_json(report)) == report


@pytest.mark.usefixtures("in_threads")
def test_an_error_in_one_of_the_threads_is_that_of_the_candidate():
    with pytest.raises(ModelError):
        measure([fake(latency_ms=1, fail_at=8)], replace(QUICK, concurrency=(3,)))


def test_no_thread_waits_for_one_that_failed():
    class Fails:
        def infer(self, batch):
            raise ModelError("no", "yes")

    class Runs:
        def infer(self, batch):
            return batch

    with pytest.raises(ModelError):
        call_at_once([Runs(), Fails(), Runs()], np.zeros(1), 0.1, 10)


@pytest.mark.usefixtures("in_threads")
def test_two_candidates_run_alone_and_at_once():
    report = measure([fake("a", latency_ms=2), fake("b", latency_ms=4)], replace(QUICK, co_run=True))
    a, b = report.results
    assert (a.co_run.other, b.co_run.other) == (b.artifact, a.artifact)
    assert b.co_run.latency_ms.min >= 4
    low, high = a.co_run.slowdown_ci95
    assert low <= a.co_run.slowdown <= high
    assert report.protocol.co_run
    assert from_json(ProfileReport, to_json(report)) == report


@pytest.mark.usefixtures("in_threads")
def test_one_that_fails_while_both_run_leaves_the_other():
    report = measure([fake("a", latency_ms=2), fake("b", latency_ms=2, fail_at=90)], replace(QUICK, co_run=True), keep_going=True)
    assert [failure.name for failure in report.failures] == ["b"]
    assert [len(result.block_calls) for result in report.results] == [6]


@pytest.mark.parametrize(("rates", "knee"), [((), None), ((10, 20, 21, 20), 2), ((10, 20, 40), 3), ((10, 10, 9), 1)])
def test_the_knee_is_where_more_calls_at_once_stop_helping(rates, knee):
    crowds = [CrowdLatency(number, 1, SUMMARY, rate, (rate, rate)) for number, rate in enumerate(rates, start=1)]
    assert knee_of(crowds) == knee
