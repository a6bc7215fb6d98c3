"""The slowest calls, and what could explain them."""

import numpy as np
import pytest

from emca_deploy.harness.measure.candidate import Block, Candidate
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.harness.measure.outliers import outliers_of
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.telemetry.recorder import Sample

CALLS, BLOCKS, SECOND = 10, 20, 1_000_000_000


def candidate(slow=(), counts=(0, 0, 0), steal_ms=0.0):
    """Return a candidate with a block of ten calls of 5 ms each second; `slow` maps a block to its last call's milliseconds."""
    blocks = []
    for index in range(BLOCKS):
        calls_ms, usage = np.full(CALLS, 5.0), np.tile([0, 1, 0], (CALLS, 1))
        stolen = 0.0
        if index in dict(slow):
            calls_ms[-1], usage[-1], stolen = dict(slow)[index], counts, steal_ms
        start_ns = index * SECOND
        blocks.append(Block(0, calls_ms, None, (start_ns, start_ns + round(calls_ms.sum() * 1e6)), 0.0, usage, stolen))
    return Candidate("a", blocks=blocks)


@pytest.mark.parametrize(
    ("counts", "steal_ms", "named"),
    [
        ((0, 1, 0), 0.0, ""),
        ((3, 1, 0), 0.0, "3 times"),
        ((0, 2, 0), 0.0, ""),  # two faults do not take 15 ms
        ((0, 9000, 0), 0.0, "9000 page faults"),
        ((0, 9, 4), 0.0, "4 page faults read from disk"),
        ((0, 1, 0), 10.0, "10 ms"),
        ((2, 1, 0), 20.0, "2 times; the hypervisor took 20 ms"),
    ],
)
def test_what_is_unusual_is_named(counts, steal_ms, named):
    first, *rest = outliers_of(candidate([(7, 20.0)], counts, steal_ms), ())
    assert (first.latency_ms, first.at_s) == (20.0, pytest.approx(7.045, abs=1e-3))
    assert (first.involuntary_switches, first.page_faults, first.disk_faults) == (counts[0], counts[1] + counts[2], counts[2])
    assert first.steal_ms == steal_ms
    assert named in first.evidence
    assert bool(first.evidence) == bool(named)
    assert [each.latency_ms for each in rest] == [5.0] * 4
    assert not any(each.evidence for each in rest)


def test_the_clock_and_the_temperature_are_those_near_the_call():
    samples = [
        Sample(index * SECOND, "cpu_frequency", {"core_0_mhz": 1.0, "mean_mhz": 1200.0 if index == 7 else 3000.0})
        for index in range(BLOCKS)
    ]
    samples.append(Sample(7 * SECOND, "temperature", {"a_temperature_c": 60.0, "b_temperature_c": 95.0}))
    first, second, *_ = outliers_of(candidate([(7, 20.0), (9, 12.0)]), samples)
    assert (first.clock_mhz, first.temperature_c) == (1200.0, 95.0)
    assert "1,200 MHz" in first.evidence
    assert (second.latency_ms, second.clock_mhz, second.temperature_c, second.evidence) == (12.0, 3000.0, None, "")


def test_without_counts_there_are_no_outliers():
    found = candidate()
    found.blocks = [Block(0, block.calls_ms, None, block.window_ns) for block in found.blocks]
    assert outliers_of(found, ()) == ()


@pytest.mark.usefixtures("in_threads")
def test_every_call_of_a_run_is_counted():
    spec = RunnerSpec("a", kwargs={"backend": "fake", "artifact": "fake:latency_ms=2"}, artifact="fake", backend="fake")
    (result,) = measure([spec], Protocol(warmup_s=0.0, block_s=0.05, duration_s=0.2)).results
    assert [each.latency_ms for each in result.outliers] == sorted(result.samples_ms, reverse=True)[:5]
    assert all(each.at_s >= 0 for each in result.outliers)
