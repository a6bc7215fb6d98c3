"""What a result says of the calls that were measured, and when a run stops, on calls made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from emca_deploy.artifacts import TensorSpec
from emca_deploy.harness.measure.candidate import Block, Candidate, Process
from emca_deploy.harness.measure.protocol import BLOCK_S, Protocol
from emca_deploy.harness.measure.rounds import planned_renewals, precise, reason_to_stop
from emca_deploy.harness.measure.summary import compare_candidates, result_of, summarize
from emca_deploy.harness.measure.worker import Opened, Prepared, Worker
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.results.latency import WarmUp
from emca_deploy.stats.estimates import median_ci, ratio_of_medians

SPEC = TensorSpec("images", "float32", (1, 3, 4, 4))
STEADY = WarmUp(True, 1.0, 100, 5)
RUN = Protocol(duration_s=1.0, block_s=0.1)


def process(load_ms=1.0, first_ms=2.0, peak_mib=10.0, warm_up=STEADY, in_flight=1, name="a", batch=None):
    worker = Worker(RunnerSpec(name, backend="fake", artifact=name, batch=batch))
    worker.peak_rss_mib = peak_mib
    return Process(worker, Opened(SPEC, SPEC, load_ms), Prepared(first_ms, in_flight), warm_up)


def candidate(*processes, calls=20, rounds=10, call_ms=1.0, wall_ms=100.0, name="a", noise=0.0):
    """Blocks of `calls` calls each, in turn by each process; a block lasts `wall_ms`."""
    processes = processes or (process(name=name),)
    found = Candidate(name, list(processes), len(processes))
    random = np.random.default_rng(0)
    for index in range(rounds):
        calls_ms = np.full(calls, call_ms) + noise * random.random(calls)
        window_ns = (int(index * wall_ms * 1e6), int((index + 1) * wall_ms * 1e6))
        found.blocks.append(Block(index % len(processes), calls_ms, None, window_ns))
    return found


def result(found, protocol=RUN, stop="fixed duration"):
    return result_of(found, protocol, protocol.record(len(found.blocks), stop), ())


def test_summary_is_the_order_statistics():
    random = np.random.default_rng(0)
    values = random.permutation(np.arange(1.0, 2001.0))
    found = summarize(np.split(values, 20))
    assert (found.min, found.max, found.mean) == (1, 2000, 1000.5)
    assert (found.p50, found.p90, found.p95, found.p99, found.p99_9) == (1000, 1800, 1900, 1980, 1998)
    assert found.std == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert found.p50_ci95 == median_ci(np.split(values, 20), 0)


def test_several_processes_are_one_result():
    slow = WarmUp(False, 3.0, 50, 9)
    found = result(candidate(process(1.0, 5.0, 30.0), process(7.0, 6.0, 90.0, slow, 4), process(3.0, 9.0, 60.0)))
    assert (found.load_ms, found.first_inference_ms, found.peak_rss_mib) == (3.0, 6.0, 90.0)
    assert found.protocol.warm_up == slow
    assert found.protocol.in_flight == 4
    assert not found.stable
    assert "--warmup" in found.warnings[0]
    settled = result(candidate(process(warm_up=replace(slow, settled=True)), process()))
    assert settled.protocol.warm_up == replace(slow, settled=True)
    assert settled.stable
    assert result(candidate(process(warm_up=None))).protocol.warm_up is None


def test_drift_of_one_process_is_a_doubt_and_a_level_of_its_own_is_none():
    found = candidate(process(), process(), rounds=12)
    found.blocks = [replace(block, calls_ms=block.calls_ms * (1 + block.process)) for block in found.blocks]
    assert result(found).stable
    found.blocks = [
        replace(block, calls_ms=block.calls_ms * (1.1**index if block.process else 1)) for index, block in enumerate(found.blocks)
    ]
    assert [warning.split(" ")[0] for warning in result(found).warnings if "drifted" in warning] == ["latency"]


@pytest.mark.parametrize(("calls", "noted"), [(99, True), (100, False)])
def test_too_few_calls_for_the_highest_percentile_are_noted(calls, noted):
    found = result(candidate(calls=calls))
    assert any("p99.9" in warning for warning in found.warnings) is noted
    assert found.stable


@pytest.mark.parametrize(("fewest", "few"), [(2001, True), (2000, False)])
def test_the_time_limit_is_noted_with_its_reason(fewest, few):
    found = result(candidate(calls=200), replace(RUN, min_queries=fewest), "time limit")
    (warning,) = found.warnings
    assert ("2000 calls" in warning) is few
    assert "--max-duration" in warning


def test_throughput_of_single_calls_and_of_overlapping_ones():
    found = candidate(process(batch=8), calls=20, call_ms=4.0, wall_ms=50.0)
    single = result(found)
    assert (single.batch, single.throughput_ci95, single.block_wall_ms) == (8, None, ())
    assert single.throughput_images_per_s == pytest.approx(8 / 4e-3)
    offline = result(found, replace(RUN, scenario="offline"))
    assert offline.throughput_images_per_s == pytest.approx(8 * 20 / 50e-3)
    assert offline.throughput_ci95 == pytest.approx((3200, 3200))
    assert offline.block_wall_ms == (50.0,) * 10


def test_offline_candidates_are_compared_by_the_time_per_image():
    first, other = candidate(process(batch=2), wall_ms=100.0), candidate(process(batch=8), wall_ms=100.0, call_ms=9.0, name="b")
    other.blocks.pop()  # an interrupt in the middle of a round
    (comparison,) = compare_candidates([first, other], replace(RUN, scenario="offline"))
    assert comparison.ratio_p50 == pytest.approx(4)
    (comparison,) = compare_candidates([first, other], RUN)
    assert (comparison.ratio_p50, comparison.verdict) == (pytest.approx(1 / 9), "slower")


def test_an_interval_resamples_processes_where_there_are_several():
    first = candidate(process(), process(), noise=0.5)
    second = candidate(process(name="b"), process(name="b"), call_ms=2.0, noise=0.4, name="b")
    (comparison,) = compare_candidates([first, second], replace(RUN, seed=3))
    ran = [0, 1] * 5
    expected = ratio_of_medians(first.calls_ms, second.calls_ms, 3, processes=(ran, ran))
    assert (comparison.ratio_p50, comparison.ratio_ci95) == expected
    assert result(first, replace(RUN, seed=3)).latency_ms.p50_ci95 == median_ci(first.calls_ms, 3, ran)


def test_precise_compares_half_the_interval_with_the_middle():
    random = np.random.default_rng(0)
    blocks = [2 + random.random(9) for _ in range(20)]
    low, high = median_ci(blocks, 0)
    half = (high - low) / (high + low)
    assert precise(blocks, 1.001 * half, 0)
    assert not precise(blocks, 0.999 * half, 0)


OPEN_END = replace(RUN, max_duration_s=6.0, min_queries=1, interval_goal=0.01)


@pytest.mark.parametrize(
    ("protocol", "rounds", "reason"),
    [
        (RUN, 9, None),
        (RUN, 10, "fixed duration"),
        (replace(RUN, max_duration_s=0.5), 10, "fixed duration"),
        (OPEN_END, 9, None),
        (OPEN_END, 10, "interval within 1 %"),
        (OPEN_END, 11, None),  # no look is planned there
        (OPEN_END, 15, "interval within 1 %"),
        (OPEN_END, 60, "time limit"),
        (replace(OPEN_END, min_queries=201), 10, None),
        (replace(OPEN_END, min_queries=200), 10, "interval within 1 %"),
    ],
)
def test_reason_to_stop(protocol, rounds, reason):
    assert reason_to_stop([candidate(rounds=rounds)], protocol) == reason


def test_fast_calls_need_a_hundred_queries_and_slow_ones_fewer():
    quick = candidate(calls=9, wall_ms=10.0)  # a call takes 1.1 ms, so that a hundred fit into the duration
    assert reason_to_stop([quick], OPEN_END) is None
    assert reason_to_stop([candidate(calls=10, wall_ms=10.0)], OPEN_END) is not None
    assert reason_to_stop([candidate(calls=9, wall_ms=91.0)], OPEN_END) is not None  # a hundred take more than the duration
    four = process(in_flight=4)  # each call takes four times its share of the wall time
    assert reason_to_stop([candidate(four, calls=9, wall_ms=30.0)], OPEN_END) is not None


def test_time_is_over_when_all_candidates_together_have_used_theirs():
    long = candidate(call_ms=900.0, wall_ms=900.0, rounds=7, calls=1)
    short = candidate(call_ms=100.0, wall_ms=100.0, rounds=7, calls=1)
    assert reason_to_stop([long, short], OPEN_END) is None  # 7 s of 12 s
    assert reason_to_stop([long, long], OPEN_END) == "time limit"


@pytest.mark.parametrize(
    ("rounds", "call_ms", "processes", "stops"),
    [
        (24, 500.0, 2, True),
        (23, 500.0, 2, False),  # one process has fewer than twelve blocks
        (24, 500.0, 1, False),  # the second process is not started yet
        (24, 200.0, 2, False),  # less than five seconds
        (25, 200.0, 2, True),
    ],
)
def test_long_calls_end_a_fixed_duration_before_its_rounds(rounds, call_ms, processes, stops):
    protocol = Protocol(duration_s=5.0, block_s=0.05, processes=2)
    found = candidate(*[process() for _ in range(processes)], calls=1, rounds=rounds, call_ms=call_ms, wall_ms=2 * call_ms)
    assert reason_to_stop([found], protocol) == ("fixed duration" if stops else None)


@pytest.mark.parametrize(
    ("processes", "at_once", "most_s", "renewals"),
    [
        (1, 1, None, ()),
        (4, 4, None, ()),
        (4, 1, None, (25, 50, 75)),
        (4, 2, None, (50,)),
        (5, 2, None, (33, 67)),
        (2, 1, 20.0, (50, 100, 150)),
    ],
)
def test_processes_that_do_not_fit_take_their_place_at_even_shares(processes, at_once, most_s, renewals):
    protocol = Protocol(duration_s=10.0, block_s=0.1, max_duration_s=most_s, processes=processes)
    assert planned_renewals(protocol, at_once) == frozenset(renewals)


def test_the_protocols_defaults_are_those_that_the_documentation_states():
    assert BLOCK_S == {"single-stream": 0.05, "offline": 0.5, "paced": 1.0}
    assert Protocol() == Protocol(
        "single-stream", 1, 2.0, 0.05, 5.0, 20_000, 0, 300.0, None, 0.01, 64, 1, load_together=False
    )  # fmt: skip
    assert (Protocol().rounds, Protocol().max_rounds, Protocol(max_duration_s=60.0).max_rounds) == (100, 100, 1200)
    assert Protocol(duration_s=0.01).rounds == Protocol(duration_s=0.01).max_rounds == 1
