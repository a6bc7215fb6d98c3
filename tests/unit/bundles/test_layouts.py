"""Folders for model servers, read by the libraries of those servers."""

import importlib.util
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format

from emca_deploy.api.bundle import BundleRequest
from emca_deploy.api.layout import lay_out
from emca_deploy.artifacts import Manifest, write_manifest
from emca_deploy.bundles.layouts.registry import LAYOUTS
from emca_deploy.errors import BundleError, EmcaError, OutputError
from emca_deploy.preprocessing import Preprocessing

TUNED = {"scenario": "single-stream", "batch": 1, "values": {"threads": 3}}


@pytest.fixture
def engine(tmp_path):
    """Return a function that writes the file of an engine, which holds no engine, with its manifest."""

    def make(backend: str, **facts: Any) -> Path:
        path = tmp_path / f"{backend}.engine"
        path.write_bytes(b"an engine")
        write_manifest(path, Manifest("engine", "", "int8", backend, preprocessing=Preprocessing(image_size=2), **facts))
        return path

    return make


@pytest.fixture
def laid_out(tmp_path):
    """Return a function that writes a layout and returns its folder."""

    def make(layout: str, *sources: Path, labels: tuple[str, ...] = ()) -> Path:
        if labels:
            (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in labels))
        output = tmp_path / f"{layout}-folder"
        lay_out(BundleRequest(sources, output, "Net", tmp_path / "labels.txt" if labels else None), layout)
        return output

    return make


def triton_config(path: Path) -> Any:
    """Read a configuration as Triton does; the package of this module needs grpc."""
    folder = importlib.util.find_spec("tritonclient").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("model_config_pb2", f"{folder}/grpc/model_config_pb2.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return text_format.Parse(path.read_text(), module.ModelConfig())


def test_triton_batches_a_model_of_dynamic_batch_with_its_tuned_threads(artifact, laid_out):
    model = artifact(external=True, settings=({**TUNED, "backend": "onnxruntime"},))
    folder = laid_out("triton", model, labels=("cat", "dog"))
    config = triton_config(folder / "net/config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("net", "onnxruntime", 8)
    assert config.HasField("dynamic_batching")
    (taken,), (given,) = config.input, config.output
    assert (taken.name, taken.data_type, list(taken.dims)) == ("x", 11, [4])  # TYPE_FP32
    assert (given.name, list(given.dims)) == ("y", [2])
    assert (folder / "net" / given.label_filename).read_text().splitlines() == ["cat", "dog"]
    assert {name: value.string_value for name, value in config.parameters.items()} == {"intra_op_thread_count": "3"}
    assert (folder / "net/1/weights.bin").is_file()


def test_triton_gets_a_model_of_fixed_batch_with_all_its_axes(artifact, laid_out, tmp_path):
    model = artifact()
    proto = onnx.load(model)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(proto, model)
    write_manifest(model, Manifest("onnx", "", "fp32", preprocessing=Preprocessing(image_size=2)))
    config = triton_config(laid_out("triton", model) / "net/config.pbtxt")
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([2, 4], [2, 2])


def test_triton_runs_models_for_openvino_by_its_backend(artifact, laid_out):
    values = {"threads": 2, "streams": 2, "hint": "THROUGHPUT"}
    tuned = {"backend": "openvino", "scenario": "offline", "batch": 16, "values": values}
    folder = laid_out("triton", artifact(backend="openvino", precision="int8", settings=(tuned,)))
    config = triton_config(folder / "net/config.pbtxt")
    assert (config.backend, config.default_model_filename, config.max_batch_size) == ("openvino", "model.onnx", 16)
    assert list(config.dynamic_batching.preferred_batch_size) == [16]
    assert {name: value.string_value for name, value in config.parameters.items()} == {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": "2",
        "INFERENCE_NUM_THREADS": "2",
    }
    assert config.instance_group[0].count == 2


def test_triton_runs_an_engine_of_tensorrt_on_a_gpu(engine, laid_out):
    image = {"name": "images", "dtype": "uint8", "shape": ["batch", 2, 2, 3]}
    folder = laid_out("triton", engine("tensorrt", details={"tensorrt": {"input": image, "batches": [1, 4, 32]}}))
    config = triton_config(folder / "net/config.pbtxt")
    assert (config.backend, config.max_batch_size, list(config.output)) == ("tensorrt", 32, [])
    assert (config.input[0].data_type, list(config.input[0].dims)) == (2, [2, 2, 3])  # TYPE_UINT8
    assert config.instance_group[0].kind == 1  # KIND_GPU
    assert (folder / "net/1/model.plan").read_bytes() == b"an engine"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_inputs_make_the_same_files_once(artifact, tmp_path, layout):
    model = artifact()
    reports = [lay_out(BundleRequest((model,), tmp_path / name), layout) for name in "ab"]
    assert reports[0].files == reports[1].files
    assert {each.name for each in reports[0].files} == {
        path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*") if path.is_file()
    }
    with pytest.raises(OutputError):
        lay_out(BundleRequest((model,), tmp_path / "a"), layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", ["tensorrt-rtx", "openvino", "onnxruntime"])
def test_what_a_server_cannot_run_is_refused_and_nothing_is_left(engine, tmp_path, layout, backend):
    with pytest.raises(BundleError):
        lay_out(BundleRequest((engine(backend),), tmp_path / "out"), layout)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".emca*"))


def test_the_fastest_model_that_a_server_runs_is_chosen(artifact, engine, laid_out):
    plain = artifact()
    folder = laid_out("triton", engine("tensorrt-rtx", num_classes=2), plain)
    assert (folder / "net/1/model.onnx").read_bytes() == plain.read_bytes()


def test_programs_and_unknown_layouts_are_refused(artifact, tmp_path):
    with pytest.raises(EmcaError):
        lay_out(BundleRequest((artifact(),), tmp_path / "out", code=("python",)), "triton")
    with pytest.raises(EmcaError):
        lay_out(BundleRequest((artifact(),), tmp_path / "out"), "tritn")
