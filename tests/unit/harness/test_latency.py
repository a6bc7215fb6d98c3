import gc
import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.errors import InputError, WorkerError
from emca_deploy.harness.clock import no_garbage_collection, time_calls
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.harness.measure.stability import contention_warnings, drift_warnings
from emca_deploy.harness.measure.summary import summarize
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.environment import collect_environment
from emca_deploy.machines.machine_state import CpuTimes, read_cpu_times
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.latency import ProfileReport

QUICK = Protocol(warmup_s=0.1, block_s=0.02, duration_s=0.2)


def test_spec_survives_json(make_spec):
    spec = make_spec("mine", does="print", batch=3)
    assert from_json(RunnerSpec, json.loads(json.dumps(to_json(spec)))) == spec


def test_faster_candidate_is_found_faster(make_spec):
    slow, fast = make_spec("slow", latency_s=0.02), make_spec("fast", latency_s=0.002)
    ticks = []
    report = measure([slow, fast], QUICK, lambda done, total: ticks.append((done, total)))
    assert [result.artifact for result in report.results] == ["slow", "fast"]
    (comparison,) = report.comparisons
    assert (comparison.a, comparison.b) == ("fast", "slow")
    assert comparison.ratio_p50 > 2
    assert comparison.ratio_ci95[0] <= comparison.ratio_p50 <= comparison.ratio_ci95[1]
    assert ticks == [(done, 20) for done in range(1, 21)]


def test_result_has_what_the_samples_say(make_spec):
    report = measure([make_spec("mine", latency_s=0.001)], Protocol(batch=2, warmup_s=0.05, block_s=0.02, duration_s=0.2))
    (result,) = report.results
    samples = np.sort(result.samples_ms)
    latency = result.latency_ms
    assert result.samples == len(samples)
    assert latency.min == samples[0]
    assert latency.max == samples[-1]
    assert latency.mean == pytest.approx(samples.mean())
    assert latency.p50 in samples
    assert latency.min <= latency.p50 <= latency.p90 <= latency.p95 <= latency.p99 <= latency.p99_9 <= latency.max
    assert latency.p50_ci95[0] <= latency.p50 <= latency.p50_ci95[1]
    assert result.throughput_images_per_s == pytest.approx(2 * len(samples) / samples.sum() * 1000)
    assert any("p99.9" in warning for warning in result.warnings)
    assert report.comparisons == ()


def test_report_survives_json(make_spec):
    report = measure([make_spec("a"), make_spec("b")], QUICK)
    document = json.loads(json.dumps(to_json(report), allow_nan=False))
    again = from_json(ProfileReport, document)
    assert json.loads(json.dumps(to_json(again))) == document


def test_an_accelerators_own_time_is_recorded_where_there_is_one(make_spec):
    spec = replace(make_spec("gpu", latency_s=0.001), factory="harness_runners:make_device")
    report = measure([spec, make_spec("cpu", latency_s=0.001)], QUICK)
    on_device, on_host = to_json(report)["results"]
    assert on_device["device_ms"]["min"] > 2  # neither the first call nor the warm-up
    assert on_device["device_ms"]["max"] - on_device["device_ms"]["min"] >= on_device["samples"] - 1
    assert "device_ms" not in on_host
    again = from_json(ProfileReport, json.loads(json.dumps(to_json(report))))
    assert again.results[0].device_ms is not None
    assert to_json(again)["results"][0]["device_ms"]["p50"] == on_device["device_ms"]["p50"]


def test_a_runner_that_cannot_tell_the_accelerators_time(make_spec):
    spec = replace(make_spec("gpu", does="forget", latency_s=0.001), factory="harness_runners:make_device")
    assert measure([spec], QUICK).results[0].device_ms is None


def test_samples_are_bounded(make_spec):
    report = measure([make_spec()], Protocol(warmup_s=0, block_s=0.02, duration_s=0.2, max_samples=50))
    assert report.results[0].samples <= 50


@pytest.mark.parametrize("names", [[], ["same", "same"]])
def test_candidates_need_different_names(make_spec, names):
    with pytest.raises(InputError):
        measure([make_spec(name) for name in names], QUICK)


def test_a_crash_stops_the_run_and_names_the_candidate(make_spec):
    with refusing(WorkerError, "bad"):
        measure([make_spec("good"), make_spec("bad", does="abort")], QUICK)


def test_summary_of_one_call():
    latency = summarize([np.array([3.0])])
    assert (latency.p50, latency.p99_9, latency.std, latency.p50_ci95) == (3.0, 3.0, 0.0, (3.0, 3.0))


def test_time_calls_keeps_its_bounds():
    calls = []
    assert len(time_calls(lambda: calls.append(1), seconds=0, min_calls=5)) == 5
    assert len(time_calls(lambda: calls.append(1), seconds=60, max_calls=9)) == 9
    assert len(calls) == 14
    assert len(time_calls(lambda: calls.append(1), seconds=0, after=lambda: calls.append(2))) == 1
    assert calls[14:] == [1, 2]


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_before_and_not_while_calls_are_timed(enabled):
    class Circle:
        def __init__(self):
            self.itself = self

    gc.disable()
    circle = weakref.ref(Circle())
    try:
        (gc.enable if enabled else gc.disable)()
        with no_garbage_collection():
            assert not gc.isenabled()
            assert (circle() is None) is enabled
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_drift_is_seen_and_noise_is_not():
    rng = np.random.default_rng(0)
    steady = [1 + 0.02 * rng.standard_normal(50) for _ in range(20)]
    assert drift_warnings(steady) == []
    heating = [block * (1 + 0.02 * index) for index, block in enumerate(steady)]
    (warning,) = drift_warnings(heating)
    assert "+2" in warning  # about +27 %
    assert "--duration" in warning


def test_contention_warns_of_steal_and_of_others():
    start = CpuTimes(busy_s=100, steal_s=1, total_s=1000)
    assert contention_warnings(start, CpuTimes(105, 1, 1010), own_cpu_s=5) == []
    (steal,) = contention_warnings(start, CpuTimes(105, 2, 1010), own_cpu_s=5)
    assert "steal" in steal
    assert "10%" in steal
    (others,) = contention_warnings(start, CpuTimes(109, 1, 1010), own_cpu_s=5)
    assert "40%" in others
    assert contention_warnings(None, None, 1.0) == []
    assert contention_warnings(start, start, 0.0) == []


def test_cpu_counters_move_forward():
    before = read_cpu_times()
    if before is None:
        pytest.skip("needs /proc/stat")
    passed = read_cpu_times().since(before)
    assert min(passed.busy_s, passed.steal_s, passed.total_s) >= 0


def test_environment_is_json_and_loads_no_runtime():
    import subprocess
    import sys

    environment = collect_environment()
    assert json.loads(json.dumps(environment, allow_nan=False)) == environment
    assert environment["versions"]["numpy"] == np.__version__
    assert environment["cpu"]["logical_cores"] >= 1
    assert environment["created"].endswith("+00:00")
    code = (
        "import sys; from emca_deploy.machines.environment import collect_environment; collect_environment(); "
        "raise SystemExit(' '.join({'torch', 'onnx', 'onnxruntime', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_loading_together_takes_one_load_and_keeps_the_order(make_spec):
    specs = [make_spec(name, load_s=0.4) for name in ("a", "b", "c")]
    together = replace(QUICK, load_together=True)
    report = measure(specs, together)
    assert [result.artifact for result in report.results] == ["a", "b", "c"]
    assert all(result.load_ms >= 400 for result in report.results)
    opened = [result.runtime["opened_ns"] for result in report.results]
    closed = [result.runtime["loaded_ns"] for result in report.results]
    assert max(opened) < min(closed)  # each started before any ended


@pytest.mark.parametrize("does", ["refuse", "abort"])
def test_loading_together_leaves_out_what_fails(make_spec, does):
    specs = [make_spec("good"), make_spec("bad", does=does), make_spec("fine")]
    report = measure(specs, replace(QUICK, load_together=True), keep_going=True)
    assert [result.artifact for result in report.results] == ["good", "fine"]
    assert [failure.name for failure in report.failures] == ["bad"]
    assert not report.complete
