"""Defaults of settings, clean-up and numbers of the backends for processors."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from refusals import refusing

from emca_deploy._machine import CpuInfo
from emca_deploy.backends.base import RunOptions, Situation
from emca_deploy.backends.fake.runner import FakeRunner, FakeSettings
from emca_deploy.backends.onnxruntime.layers import OrtLayerProfiler
from emca_deploy.backends.peak_models import write_peak_models
from emca_deploy.backends.registry import open_runner, tunables
from emca_deploy.errors import InputError, ModelError

CPU = CpuInfo("a processor", "x86_64", 4, 8, ("avx2",))
ARM = CpuInfo("a processor", "aarch64", 4, 4, ("bf16",))


def space(backend, **changes):
    values = {"cpu": CPU, "offline": False, "threads_default": 4, "threads_max": 8, **changes}
    return {one.name: (one.default, one.others, one.threaded) for one in tunables(backend, Situation(**values))}


def test_settings_of_onnx_runtime_to_try():
    common = {
        "spin": (True, (False,), True),
        "force_spinning_stop": (False, (True,), True),
        "execution_mode": ("sequential", ("parallel",), True),
        "graph_optimization": ("all", ("layout", "extended"), False),
        "flush_denormals": (False, (True,), False),
    }
    assert space("onnxruntime") == {"threads": (4, (1, 2, 3, 8), False), **common}
    arm = space("onnxruntime", cpu=ARM, precisions=("bf16",), threads_max=4)
    assert arm == {"threads": (4, (1, 2, 3), False), **common, "fastmath_bf16": (False, (True,), False)}
    for cpu in (CPU, CpuInfo("a processor", "aarch64", 4, 4, ())):
        with refusing(InputError, "bf16"):
            space("onnxruntime", cpu=cpu, precisions=("bf16",))


@pytest.mark.parametrize("offline", [False, True])
def test_settings_of_openvino_to_try(offline):
    pytest.importorskip("openvino")
    found = space("openvino", offline=offline)
    expected = {
        "threads": (4, (1, 2, 3, 8), False),
        "pinning": (True, (False,), False),
        "flush_denormals": (False, (True,), False),
    }
    if offline:
        expected |= {"streams": ("AUTO", (1, 2, 4, 8), False), "hint": ("THROUGHPUT", ("LATENCY",), False)}
    assert {name: found[name] for name in expected} == expected
    assert set(found) - set(expected) <= {"hyper_threading", "core_type"}


def test_offline_calls_are_counted_and_last_as_long_as_wanted(make_onnx):
    pytest.importorskip("openvino")
    with open_runner("openvino", str(make_onnx()), threads=1) as runner:
        with pytest.raises(RuntimeError):
            runner.run_offline(0.0, 1, 1)
        assert runner.start_offline(np.ones((1, 3, 8, 8), np.float32)) >= 1
        assert len(runner.run_offline(60.0, 1, 7)) == 7
        assert len(runner.run_offline(0.0, 3, 9)) == 3
        latencies_ns = runner.run_offline(0.05, 1, 1_000_000)
        assert 1 < len(latencies_ns) < 1_000_000
        assert latencies_ns.min() > 0


def test_profiles_of_onnx_runtime_leave_no_folder(make_onnx):
    profiler = OrtLayerProfiler(str(make_onnx()), RunOptions())
    profiler.open()
    folder = profiler._folder
    assert Path(folder.name).is_dir()
    profiler.infer(np.ones((1, 3, 8, 8), np.float32))
    assert profiler.layers(0)
    profiler.close()
    profiler.close()
    assert not Path(folder.name).exists()
    broken = OrtLayerProfiler("absent.onnx", RunOptions())
    with pytest.raises(ModelError):
        broken.open()
    assert broken._folder is None


def test_a_fake_has_the_sizes_paces_and_precisions_of_a_runner():
    assert FakeSettings() == FakeSettings(0.0, 0.0, 10, 8, 0, 0, 0, 0)
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)

    def run(artifact="fake:", **options):
        with FakeRunner(artifact, RunOptions(**options)) as runner:
            assert (runner.input.shape, runner.output.shape) == (("batch", 3, 8, 8), ("batch", 10))
            assert runner.describe() == {"runtime": "fake", "threads": options.get("threads", 1)}
            return runner.infer(images), runner._latency_ms

    plain, latency_ms = run("fake:latency_ms=2")
    assert latency_ms == 2.0
    weights = np.random.default_rng(0).standard_normal((24, 10)).astype(np.float32)
    np.testing.assert_allclose(plain, images.mean(axis=2).reshape(2, 24) @ weights, rtol=1e-5)
    rough, slower_ms = run("fake:latency_ms=2", precision="bf16")
    assert 0 < np.abs(rough - plain).max() < 0.02 * np.abs(plain).max()
    assert slower_ms == 3.0
    assert [run("fake:latency_ms=2", settings={"pace": pace})[1] for pace in ("steady", "quick", "slow")] == [2.0, 1.0, 4.0]
    with refusing(InputError, "f16"):
        run(precision="f16")
    with pytest.raises(ModelError):
        run(settings={"pace": "broken"})
    with pytest.raises(RuntimeError):
        FakeRunner("fake:", RunOptions()).infer(images)


def test_models_of_the_peak_are_one_layer_of_known_work(tmp_path, golden):
    found = {}
    for probe in write_peak_models(tmp_path):
        model = onnx.load(probe.path)
        stored = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
        found[probe.path.name] = {
            "probe": [probe.name, probe.shape, probe.macs, probe.moved_bytes],
            "nodes": [
                f"{node.op_type} {node.name} {[(a.name, list(a.ints)) for a in node.attribute]}" for node in model.graph.node
            ],
            "stored": {
                name: [str(array.dtype), list(array.shape), float(f"{np.abs(array.astype(np.float64)).max():.4g}")]
                for name, array in stored.items()
            },
        }
    golden("backends/peaks", json.loads(json.dumps(found)))
