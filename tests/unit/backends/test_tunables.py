"""Every tunable setting loads and gives the same logits; all others are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refusing

from emca_deploy._machine import CpuInfo, cpu_info
from emca_deploy.artifacts import Manifest, write_manifest
from emca_deploy.backends.base import RUN_OPTIONS, Situation
from emca_deploy.backends.registry import available, check_settings, open_runner, tunables
from emca_deploy.errors import InputError, UnknownNameError

RUNNER = "emca_deploy.backends.onnxruntime.runner"
IMAGES = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


def situation(**changes: Any) -> Situation:
    values = {"cpu": cpu_info(), "offline": False, "threads_default": 2, "threads_max": 2, **changes}
    return Situation(**values)


def logits(backend: str, path: Path, **options: Any) -> np.ndarray:
    with open_runner(backend, str(path), **options) as runner:
        return runner.infer(IMAGES).copy()


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_value_that_is_tried_runs_and_answers_alike(backend, offline, make_onnx):
    if available()[backend].reason:
        pytest.skip(f"{backend}: {available()[backend].reason}")
    path = make_onnx()
    expected = logits(backend, path)
    space = tunables(backend, situation(offline=offline))
    assert space[0].name == "threads"
    assert len(space) > 2
    for tunable in space:
        for value in (tunable.default, *tunable.others):
            options = {tunable.name: value} if tunable.name in RUN_OPTIONS else {"settings": {tunable.name: value}}
            np.testing.assert_allclose(logits(backend, path, **options), expected, rtol=1e-5, atol=1e-6)


def test_settings_reach_onnx_runtime(make_onnx):
    settings = {"graph_optimization": "basic", "execution_mode": "parallel", "flush_denormals": True}
    with open_runner("onnxruntime", str(make_onnx()), threads=2, settings=settings) as runner:
        options = runner._session.get_session_options()  # no public function returns them
        assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"
        assert options.execution_mode.name == "ORT_PARALLEL"
        assert options.get_session_config_entry("session.set_denormal_as_zero") == "1"
        assert runner.describe()["settings"] == settings


@pytest.mark.parametrize(
    ("sets", "weight_bits", "exact"),
    [
        (("avx2",), 8, "1"),
        (("avx2",), None, "1"),
        (("avx2",), 7, "0"),
        (("avx2", "avx_vnni"), None, "0"),
        (("avx512f", "avx512_vnni", "amx_int8"), 8, "0"),
    ],
)
def test_exact_sums_are_wanted_only_where_sums_overflow(make_onnx, monkeypatch, sets, weight_bits, exact):
    monkeypatch.setattr(f"{RUNNER}.cpu_info", lambda: CpuInfo("some processor", "x86_64", 2, 2, sets))
    path = make_onnx()
    if weight_bits is not None:
        write_manifest(path, Manifest(kind="onnx", sha256="", precision="int8", details={"weight_bits": weight_bits}))
    with open_runner("onnxruntime", str(path)) as runner:
        assert runner._session.get_session_options().get_session_config_entry("session.x64quantprecision") == exact


def test_a_model_that_exact_sums_break_runs_without_them(exported, tmp_path, monkeypatch):
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = 2

        def get_next(self):
            self.left -= 1
            return {"images": np.random.default_rng(self.left).random((1, 3, 64, 64), np.float32)} if self.left >= 0 else None

    monkeypatch.setattr(f"{RUNNER}.cpu_info", lambda: CpuInfo("some processor", "x86_64", 2, 2, ("avx2",)))
    path = tmp_path / "static.onnx"
    quantize_static(str(exported("emca_eca_resnet18")), str(path), Reader())
    with open_runner("onnxruntime", str(path)) as runner:
        assert runner.infer(np.zeros((1, 3, 64, 64), np.float32)).shape[0] == 1


def test_every_dynamic_size_is_fixed(make_onnx):
    graph = """(float[batch,3,h,w] images) => (float[batch,3] logits) {
        pooled = GlobalAveragePool(images) logits = Flatten(pooled) }"""
    with open_runner("onnxruntime", str(make_onnx(graph)), batch=2, io={"image_size": [8, 6]}) as runner:
        assert runner._session.get_inputs()[0].shape == [2, 3, 8, 6]


def test_settings_reach_openvino(make_onnx):
    pytest.importorskip("openvino")
    settings = {"streams": 2, "hint": "THROUGHPUT", "pinning": False}
    with open_runner("openvino", str(make_onnx()), threads=2, settings=settings) as runner:
        compiled = runner._compiled
        assert compiled.get_property("NUM_STREAMS") == 2
        assert str(compiled.get_property("PERFORMANCE_HINT")).endswith("THROUGHPUT")
        assert compiled.get_property("ENABLE_CPU_PINNING") is False


def test_an_engine_is_not_optimised_again_and_threads_have_a_limit():
    names = {tunable.name for tunable in tunables("onnxruntime", situation(engine=True))}
    assert "graph_optimization" not in names
    (threads, *_) = tunables("onnxruntime", situation(threads_default=1, threads_max=6))
    assert threads.others == (2, 3, 4, 6)


def test_throughput_has_settings_that_latency_has_not():
    pytest.importorskip("openvino")
    one = {tunable.name: tunable for tunable in tunables("openvino", situation())}
    many = {tunable.name: tunable for tunable in tunables("openvino", situation(offline=True))}
    assert "streams" not in one
    assert many["streams"].default == "AUTO"
    assert set(many["streams"].others) == {1, 2}


def test_a_precision_is_tried_only_where_the_processor_has_it():
    ov = pytest.importorskip("openvino")
    with refusing(InputError, "ONNX Runtime", "f16"):
        tunables("onnxruntime", situation(precisions=("f16",)))
    offered = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision, capability in (("bf16", "BF16"), ("f16", "FP16")):
        asked = situation(precisions=(precision,))
        if capability in offered:
            assert {tunable.name: tunable.others for tunable in tunables("openvino", asked)}["precision"] == (precision,)
        else:
            with refusing(InputError, precision):
                tunables("openvino", asked)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"graph_optimization": "most"}, "'most'"),
        ({"flush_denormals": 1}, "is 1"),
        ({"execution_mode": None}, "is None"),
        ({"streams": 0}, "is 0"),
        ({"streams": True}, "is True"),
        ({"streams": "MANY"}, "'MANY'"),
    ],
)
def test_values_a_runtime_does_not_take_are_refused(settings, match):
    backend = "openvino" if "streams" in settings else "onnxruntime"
    with pytest.raises(InputError, match=match):
        check_settings(backend, settings)


def test_unknown_settings_and_backends_without_any_are_refused():
    with pytest.raises(UnknownNameError, match="pining") as caught:
        check_settings("openvino", {"pining": True})
    assert "nearest: pinning" in caught.value.remedy
    with pytest.raises(UnknownNameError):
        open_runner("torch", "model.pth", settings={"streams": 1})
    with refusing(InputError, "torch"):
        tunables("torch", situation())
