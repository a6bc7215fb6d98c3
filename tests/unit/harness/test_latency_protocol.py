"""The protocol on real processes: when it stops, what it records, and how it handles failing candidates."""

import ast
import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import refusing

from emca_deploy import harness
from emca_deploy.errors import InputError, ModelError, WorkerError
from emca_deploy.harness.measure import starting
from emca_deploy.harness.measure.latency import Protocol, measure, measuring
from emca_deploy.harness.measure.raw_samples import read_raw, write_raw
from emca_deploy.harness.measure.worker import Worker
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.latency import ProfileReport, verdict_of
from emca_deploy.results.telemetry import TelemetryResult

QUICK = Protocol(warmup_s=0.1, block_s=0.02, duration_s=0.2)


def measure_raw(*arguments, **settings):
    with measuring(*arguments, **settings) as run:
        pass
    return run.report(), run.raw()


def fake(name, **settings):
    """Return a candidate of the package's own fake backend."""
    artifact = "fake:" + ",".join(f"{key}={value}" for key, value in {"latency_ms": 1, **settings}.items())
    return RunnerSpec(name, kwargs={"backend": "fake", "artifact": artifact}, artifact=artifact, backend="fake")


def test_every_result_declares_the_protocol():
    report = measure([fake("a"), fake("b", latency_ms=2)], QUICK)
    assert (report.protocol.rounds, report.protocol.stop, report.protocol.warm_up) == (10, "fixed duration", None)
    assert report.complete
    for result in report.results:
        assert replace(result.protocol, warm_up=None) == report.protocol
        assert result.protocol.warm_up.windows >= 1
        assert len(result.block_calls) == 10


@pytest.mark.usefixtures("in_process")
def test_stops_when_the_interval_is_narrow_and_the_calls_are_enough():
    goal = replace(QUICK, max_duration_s=20.0, interval_goal=0.5, min_queries=150)
    (result,) = measure([fake("a")], goal).results
    assert result.protocol.stop == "interval within 50 %"
    assert result.samples >= 150
    assert result.protocol.rounds in (10, 15, 22, 34, 51)  # the first planned look with enough calls
    low, high = result.latency_ms.p50_ci95
    assert (high - low) / (high + low) <= 0.5


def test_stops_at_the_time_limit_where_the_interval_stays_wide():
    (result,) = measure([fake("a")], replace(QUICK, max_duration_s=0.4, interval_goal=1e-9)).results
    assert result.protocol.stop == "time limit"
    assert 10 < result.protocol.rounds <= 20  # fewer if the machine is so busy that blocks exceed their duration
    assert any("--max-duration" in warning for warning in result.warnings)


@pytest.mark.usefixtures("in_process")
def test_calls_longer_than_a_block_do_not_multiply_the_time_limit():
    (result,) = measure([fake("a", latency_ms=100)], replace(QUICK, warmup_s=0, max_duration_s=0.5)).results
    assert result.protocol.stop == "time limit"
    assert result.samples <= 5  # not the minimum of 10 rounds


def test_one_that_crashes_one_that_raises_and_one_that_hangs_leave_the_others_measured(monkeypatch):
    block = Worker.block

    def impatient(self, *arguments):
        self._timeout_s = 3.0  # from now on: starting may take longer on a busy machine
        return block(self, *arguments)

    monkeypatch.setattr(Worker, "block", impatient)
    faults = {"crash": {"crash_at": 40}, "good": {}, "raise": {"fail_at": 60}, "hang": {"hang_at": 50}, "bad": {"fail_at": 1}}
    specs = [fake(name, **fault) for name, fault in faults.items()]
    report = measure(specs, replace(QUICK, duration_s=1.0), keep_going=True)
    assert [result.artifact for result in report.results] == [specs[1].artifact]
    assert not report.complete
    assert report.comparisons == ()
    failures = {failure.name: failure for failure in report.failures}
    assert set(failures) == {"crash", "raise", "hang", "bad"}
    assert "ended with exit code 41" in failures["crash"].error
    assert (failures["raise"].error, failures["raise"].exit_code) == (f"{specs[2].artifact}: call 60 fails, as asked", 2)
    assert "hang: no answer for 3 s" in failures["hang"].error
    assert all(failure.remedy for failure in report.failures)
    again = from_json(ProfileReport, json.loads(json.dumps(to_json(report))))
    assert again.failures == report.failures


@pytest.mark.usefixtures("in_process")
def test_without_keep_going_the_error_is_raised():
    with refusing(ModelError, "fail_at=30"):
        measure([fake("good"), fake("raise", fail_at=30)], QUICK)


def test_where_all_fail_the_first_error_is_raised():
    with refusing(WorkerError, "crash"):
        measure([fake("crash", crash_at=1), fake("raise", fail_at=1)], QUICK, keep_going=True)


def test_a_worker_killed_from_outside_is_a_failure_of_its_own():
    killed = threading.Event()

    def watch(done, total):
        if not killed.is_set() and done >= 4:
            killed.set()
            os.kill(pids["victim"], signal.SIGKILL)

    pids = {}

    class Pids(Silent):
        def watch(self, name_to_pid):
            pids.update(name_to_pid)

    report = measure([fake("other"), fake("victim")], QUICK, watch, Pids(), keep_going=True)
    (failure,) = report.failures
    assert "victim: its process was killed by SIGKILL" in failure.error
    assert [len(result.block_calls) for result in report.results] == [10]


def interrupt_after(blocks):
    def report(done, total):
        if done == blocks:
            raise KeyboardInterrupt

    return report


@pytest.mark.usefixtures("in_process")
def test_an_interrupt_keeps_the_rounds_until_then():
    report, raw = measure_raw([fake("a"), fake("b"), fake("c")], QUICK, interrupt_after(11), keep_going=True)
    assert (report.complete, report.protocol.stop, report.protocol.rounds, report.failures) == (False, "interrupted", 3, ())
    assert sorted(len(result.block_calls) for result in report.results) == [3, 4, 4]
    assert len(report.comparisons) == 2
    assert all(result.peak_rss_mib > 5 for result in report.results)
    assert [len(one.block_calls) for one in raw.candidates] == [len(result.block_calls) for result in report.results]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("keep_going", "blocks"), [(True, 1), (False, 5)])
def test_an_interrupt_with_nothing_to_keep_or_unwanted_is_passed_on(keep_going, blocks):
    with pytest.raises(KeyboardInterrupt):
        measure([fake("a"), fake("b")], QUICK, interrupt_after(blocks), keep_going=keep_going)


def test_several_builds_are_one_candidate_that_alternates():
    first, second = fake("one", latency_ms=1), fake("two", latency_ms=3)
    both = [replace(spec, group="both") for spec in (first, second)]
    report, raw = measure_raw([fake("base"), *both], QUICK)
    _, result = report.results
    assert (result.artifact, result.builds) == ("both", (first.artifact, second.artifact))
    assert result.block_builds == (0, 1) * 5
    blocks = raw.candidates[1].blocks_ms()
    assert min(block.min() for block in blocks[0::2]) < 3 <= min(block.min() for block in blocks[1::2])
    (comparison,) = report.comparisons
    low, high = comparison.ratio_ci95
    assert high > 1.8 * low  # the processes differ: a third one's latency is uncertain
    assert comparison.verdict == verdict_of(comparison.ratio_ci95)


@pytest.mark.usefixtures("in_process")
def test_raw_samples_survive_their_file(tmp_path):
    report, raw = measure_raw([fake("a"), fake("b", latency_ms=2)], QUICK)
    path = tmp_path / "raw.npz"
    write_raw(path, raw)
    again = read_raw(path)
    with np.load(path) as arrays:
        whole = dict(arrays)
    assert json.loads(whole["meta"].tobytes())["raw_version"] == 1
    np.savez(tmp_path / "cut.npz", **{**whole, "calls_ns_1": whole["calls_ns_1"][1:]})
    with refusing(InputError, "cut.npz"):
        read_raw(tmp_path / "cut.npz")
    assert again.protocol == raw.protocol
    for one, other, result in zip(again.candidates, raw.candidates, report.results, strict=True):
        assert (one.name, one.builds) == (other.name, other.builds)
        for name in ("calls_ns", "block_calls", "block_build", "windows_ns", "warmup_ms", "warmup_build"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert one.calls_ns / 1e6 == pytest.approx(result.samples_ms)
        assert np.concatenate(one.blocks_ms()) == pytest.approx(result.samples_ms)
        assert len(one.warmup_ms) == result.protocol.warm_up.windows
        starts, ends = one.windows_ns.T
        assert (starts < ends).all()
        assert (ends[:-1] <= starts[1:]).all()
        assert one.device_ms is None
    assert path.stat().st_size < 20_000
    first = raw.candidates[0]
    device_ms = np.arange(len(first.calls_ns)) / 4
    write_raw(path, replace(raw, candidates=(replace(first, device_ms=device_ms),)))
    np.testing.assert_array_equal(read_raw(path).candidates[0].device_ms, device_ms)


@pytest.mark.usefixtures("in_process")
def test_raw_samples_keep_calls_of_more_than_four_seconds(tmp_path):
    _, raw = measure_raw([fake("a")], QUICK)
    slow = replace(raw.candidates[0], calls_ns=raw.candidates[0].calls_ns + 5_000_000_000)
    write_raw(tmp_path / "raw.npz", replace(raw, candidates=(slow,)))
    np.testing.assert_array_equal(read_raw(tmp_path / "raw.npz").candidates[0].calls_ns, slow.calls_ns)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x93NUMPY\x01\x00"])
def test_damaged_raw_samples_are_refused(tmp_path, content):
    (tmp_path / "raw.npz").write_bytes(content)
    with refusing(InputError, tmp_path / "raw.npz"):
        read_raw(tmp_path / "raw.npz")


def test_raw_samples_with_pickles_or_of_something_else_are_refused(tmp_path):
    np.savez(tmp_path / "pickled.npz", meta=np.array([{"a": 1}], dtype=object))
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    for name in ("pickled.npz", "other.npz", "none.npz"):
        with pytest.raises(InputError):
            read_raw(tmp_path / name)


class Silent:
    """Telemetry without sources."""

    samples = ()

    def sample_idle(self):
        pass

    def watch(self, name_to_pid):
        pass

    def begin(self):
        pass

    def end(self, name_to_windows, name_to_inferences):
        return {}


class Noting(Silent):
    """Telemetry that records its calls."""

    def __init__(self):
        self.calls = []

    def sample_idle(self):
        self.calls.append("sample_idle")

    def watch(self, name_to_pid):
        self.calls.append(("watch", set(name_to_pid)))
        assert all(Path(f"/proc/{pid}").exists() for pid in name_to_pid.values())

    def begin(self):
        self.calls.append("begin")
        self.began_ns = time.monotonic_ns()

    def end(self, name_to_windows, name_to_inferences):
        now_ns = time.monotonic_ns()
        for windows in name_to_windows.values():
            assert all(self.began_ns <= start < end <= now_ns for start, end in windows)
        self.inferences = dict(name_to_inferences)
        return {"a": TelemetryResult(idle_s=3.5, warnings=("the clock fell",))}


def test_telemetry_is_called_in_order_with_the_windows_of_every_block():
    hook = Noting()
    report = measure([fake("a"), fake("b")], QUICK, telemetry=hook)
    assert hook.calls == ["sample_idle", ("watch", {"a", "b"}), "begin"]
    first, second = to_json(report)["results"]
    assert (first["telemetry"]["sources"], first["telemetry"]["idle_s"]) == ({}, 3.5)
    assert "the clock fell" in first["warnings"]
    assert "the clock fell" not in second["warnings"]
    assert "telemetry" not in second
    assert hook.inferences == {"a": first["samples"] + 10, "b": second["samples"] + 10}  # one call per block warms the caches


def test_a_clock_on_the_wall_that_steps_back_changes_nothing(make_spec):
    spec = replace(make_spec("a", latency_s=0.001), factory="harness_runners:make_with_clock_going_back")
    (result,) = measure([spec], QUICK).results
    assert result.latency_ms.min >= 1.0
    assert result.latency_ms.p50 < 1000


def test_nothing_in_the_harness_reads_the_wall_clock_but_to_date_a_result():
    reads = []
    for path in Path(harness.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.time", "time.time_ns", "datetime.now", "time"):
                reads.append(path.name)
    assert set(reads) <= {"environment.py", "tegrastats.py", "tegrastats_source.py", "collection.py"}


def test_requests_overlap_offline_where_the_runner_can(make_spec):
    spec = replace(make_spec("a", latency_s=0.01), factory="harness_runners:make_saturable")
    offline = replace(QUICK, scenario="offline", batch=2, block_s=0.1, duration_s=0.5)
    report = measure([spec, make_spec("b", latency_s=0.01)], offline)
    many, single = report.results
    assert (many.protocol.in_flight, single.protocol.in_flight, report.protocol.in_flight) == (4, 1, 4)
    assert many.protocol.headline == "throughput"
    assert many.latency_ms.min >= 10
    assert many.throughput_images_per_s > 1.5 * single.throughput_images_per_s
    assert many.throughput_images_per_s == pytest.approx(2 * many.samples / sum(many.block_wall_ms) * 1000)
    low, high = many.throughput_ci95
    assert low <= high
    (comparison,) = report.comparisons
    assert (comparison.a, comparison.verdict) == ("b", verdict_of(comparison.ratio_ci95))
    assert comparison.ratio_p50 < 0.7


def test_abandoning_keeps_the_peak_and_ends_the_process(make_spec):
    with Worker(make_spec()) as worker:
        worker.open()
        worker.abandon()
        assert worker.peak_rss_mib > 5
        with refusing(WorkerError, "SIGKILL"):
            worker.prepare(1, 0)


@pytest.mark.usefixtures("in_process")
def test_processes_take_turns_and_those_of_one_round_live_side_by_side():
    wanted = replace(QUICK, duration_s=0.4, processes=4)
    report, raw = measure_raw([fake("a"), fake("b")], wanted)
    for result, samples in zip(report.results, raw.candidates, strict=True):
        assert result.protocol.processes == 4
        assert result.builds == ()  # all processes of one artifact
        assert list(result.block_builds) == [round_ % 4 for round_ in range(wanted.rounds)]
        assert len(samples.builds) == 4


@pytest.fixture
def life(monkeypatch):
    """Return the loaded candidates in order, the number of live processes at each load, and the live processes."""
    alive, most, loaded = set(), [], []
    opened, finished, abandoned = Worker.open, Worker.finish, Worker.abandon

    def open_(self):
        alive.add(self.pid)
        loaded.append(self.spec.name)
        most.append(len(alive))
        return opened(self)

    def finish(self):
        alive.discard(self.pid)
        return finished(self)

    def abandon(self):
        alive.discard(self.pid)
        abandoned(self)

    for name, function in (("open", open_), ("finish", finish), ("abandon", abandon)):
        monkeypatch.setattr(Worker, name, function)
    return loaded, most, alive


@pytest.mark.usefixtures("in_process")
def test_four_that_are_not_measured_are_loaded_first_and_the_candidates_take_turns(life):
    loaded, most, alive = life
    measure([fake("a"), fake("b")], replace(QUICK, processes=3))
    assert loaded == [*"aaaa", *"abbaab"]
    assert max(most) == 10
    assert alive == set()


@pytest.mark.usefixtures("in_process")
def test_where_few_fit_into_memory_others_take_their_place_later(life, monkeypatch):
    loaded, most, alive = life
    monkeypatch.setattr(starting, "available_mib", lambda: 1.0)
    report = measure([fake("a"), fake("b")], replace(QUICK, processes=2))
    assert loaded == [*"aaaa", *"ab", *"aaaa", *"ba"]
    assert max(most) == 6
    assert alive == set()
    for result in report.results:
        assert result.block_builds == (0,) * 5 + (1,) * 5


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("free_mib", [None, 1.0, 1e6])
def test_a_process_that_fails_later_takes_its_candidate_out(monkeypatch, free_mib):
    opened, times = Worker.open, []

    def open_(self):
        times.append(self.spec.name)
        if times.count("b") == 2:
            times.append("b")
            raise WorkerError("b: no more", "none")
        return opened(self)

    monkeypatch.setattr(Worker, "open", open_)
    monkeypatch.setattr(starting, "available_mib", lambda: free_mib)
    report = measure([fake("a"), fake("b"), fake("c", latency_ms=2)], replace(QUICK, processes=2), keep_going=True)
    assert [result.artifact for result in report.results] == ["fake:latency_ms=1", "fake:latency_ms=2"]
    assert [failure.name for failure in report.failures] == ["b"]
    assert not report.complete
