"""Layers as the runtimes report them."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusing

from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.layer_profiler import plain_precision
from emca_deploy.backends.onnxruntime.layers import read_ort_profile
from emca_deploy.backends.openvino.layers import precision_of_exec_type
from emca_deploy.backends.peak_models import write_peak_models
from emca_deploy.backends.registry import available, get_builder, open_profiler
from emca_deploy.errors import InputError, ModelError, UnknownNameError


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request):
    reason = available()[request.param].reason
    if reason:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


def profiled(backend: str, path: Path, shape: tuple[int, ...], calls: int = 5):
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with open_profiler(backend, str(path), batch=1) as profiler:
        assert profiler.input.shape == shape
        for _ in range(calls + 2):
            profiler.infer(images)
        return profiler.layers(2)


def test_probes_compute_in_the_precision_they_are_for(backend, tmp_path):
    probes = write_peak_models(tmp_path)
    assert [probe.name for probe in probes] == ["fp32", "int8", "fp32", "int8", "copy"]
    assert probes[0].macs == 256 * 256 * 9 * 28 * 28
    for probe in probes[2:4]:
        layers = profiled(backend, probe.path, probe.shape)
        (convolution,) = [layer for layer in layers if "conv" in layer.type.lower()]
        assert convolution.precision == probe.name
        assert {"probe", "y"} & set(convolution.nodes)  # name of the node or of its output
        assert len(convolution.samples_ms) == 5
        assert min(convolution.samples_ms) > 0.05
        if probe.name == "int8":
            assert any(layer.nodes[0] == "xq" for layer in layers)


def test_an_engine_tells_its_layers_too(backend, tmp_path):
    probe = write_peak_models(tmp_path)[2]
    engine = tmp_path / "engine.bin"
    get_builder(backend).build(probe.path, engine, RunOptions(batch=1))
    layers = profiled(backend, engine, probe.shape)
    assert any({"probe", "y"} & set(layer.nodes) and layer.precision == "fp32" for layer in layers)


def test_the_profile_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    probe = write_peak_models(tmp_path)[2]
    before = set(tmp_path.iterdir())
    with open_profiler("onnxruntime", str(probe.path)) as profiler:
        profiler.infer(np.zeros(probe.shape, np.float32))
        folder = Path(profiler._folder.name)
        assert folder.is_dir()
    assert not folder.exists()
    assert set(tmp_path.iterdir()) == before


def test_a_model_that_is_refused_leaves_no_folder_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    probe = write_peak_models(tmp_path)[2]
    profiler = open_profiler("onnxruntime", str(probe.path), batch=3)  # the probe's batch is fixed to 1
    with pytest.raises(InputError) as caught:
        profiler.open()
    assert not list((tmp_path / "tmp").iterdir())
    assert caught.value.exit_code == 2


def test_backends_without_a_profile_say_what_to_do():
    with refusing(InputError, "tensorrt") as caught:
        open_profiler("tensorrt", "model.engine")
    assert "--exportProfile" in caught.value.remedy
    with pytest.raises(UnknownNameError, match="torch"):
        open_profiler("torch", "model.pth")


def test_damaged_models_are_refused(backend, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with refusing(ModelError, path), open_profiler(backend, str(path)):
        pass


@pytest.mark.parametrize(
    ("exec_type", "precision"),
    [
        ("brgconv_avx512_I8", "int8"), ("brgconv_avx512_1x1_f32", "fp32"), ("jit_avx512_bf16", "bf16"), ("ref_f16", "fp16"),
        ("undef", "unknown"), ("", "unknown"),
    ],
)  # fmt: skip
def test_precision_of_an_execution_type(exec_type, precision):
    assert precision_of_exec_type(exec_type) == precision


def event(name, dur, op, inputs, index="0"):
    arguments = {"op_name": op, "node_index": index, "input_type_shape": inputs}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": arguments}


def test_events_of_onnx_runtime_become_layers():
    events = [
        {"cat": "Session", "name": "model_run", "dur": 9},
        *(event("stem.relu_nchwc", dur, "Conv", [{"float": [1, 3, 8, 8]}]) for dur in (100, 30, 50)),
        *(event("conv_token_7", dur, "QLinearConv", [{"uint8": [1]}, {"float": []}], "3") for dur in (9, 8, 7)),
        event("", 1, "Add", None, "5"),
    ]
    first, second, third = read_ort_profile(json.dumps(events), "m.onnx", skip=1)
    assert (first.name, first.type, first.precision) == ("stem.relu_nchwc", "Conv", "fp32")
    assert first.nodes == ("stem.relu", "stem.relu_nchwc")
    assert first.samples_ms == (0.03, 0.05)
    assert (second.precision, second.nodes[0]) == ("int8", "conv")
    assert (third.precision, third.samples_ms) == ("unknown", ())


@given(st.one_of(st.text(), st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps)))
def test_whatever_a_profile_holds_it_is_read_or_refused(text):
    with suppress(ModelError):
        assert isinstance(read_ort_profile(text, "m.onnx"), list)


def test_words_for_precisions():
    assert [plain_precision(word) for word in ("U8", "float", "bfloat16", "i64", "?")] == [
        "int8", "fp32", "bf16", "int64", "unknown",
    ]  # fmt: skip
