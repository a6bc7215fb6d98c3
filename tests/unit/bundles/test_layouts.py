"""Folders for model servers, read by the libraries of those servers."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from google.protobuf import text_format

from emca_deploy.api.bundle import BundleRequest
from emca_deploy.api.lay_out import lay_out
from emca_deploy.artifacts import Manifest, write_manifest
from emca_deploy.bundles.layouts.registry import LAYOUTS
from emca_deploy.errors import BundleError, EmcaError, OutputError
from emca_deploy.preprocessing import Preprocessing

SCHEMAS = Path(__file__).parent / "servers"
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


def fix_batch(model: Path, batch: int, **facts: Any) -> None:
    proto = onnx.load(model)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(proto, model)
    write_manifest(model, Manifest("onnx", "", "fp32", preprocessing=Preprocessing(image_size=2), **facts))


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
    fix_batch(model, 2)
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


def fits(document: Any, schema: str) -> bool:
    return jsonschema.Draft7Validator(json.loads((SCHEMAS / schema).read_text())).is_valid(document)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_readme_says_what_to_send(artifact, laid_out, layout):
    used = Preprocessing(image_size=2).of_pixels("uint8-nhwc")
    text = (laid_out(layout, artifact(preprocessing=used, temperature=1.25)) / "README.md").read_text()
    assert "0 to 255" in text
    assert "mean" not in text
    assert "1.25" in text


def test_each_server_gets_the_settings_of_its_own_library(artifact, laid_out):
    records = [
        {**TUNED, "backend": name, "values": {"threads": number}} for name, number in (("onnxruntime", 3), ("openvino", 5))
    ]
    model = artifact(settings=tuple(records))
    parameters = triton_config(laid_out("triton", model) / "net/config.pbtxt").parameters
    assert parameters["intra_op_thread_count"].string_value == "3"
    document = json.loads((laid_out("ovms", model) / "config.json").read_text())
    assert document["model_config_list"][0]["config"]["plugin_config"]["INFERENCE_NUM_THREADS"] == 5


@pytest.mark.parametrize("tuned", [{}, {"threads": 2, "streams": 2, "hint": "THROUGHPUT"}])
def test_openvino_model_server_takes_the_configuration_and_openvino_the_model(artifact, laid_out, tuned):
    openvino = pytest.importorskip("openvino")
    settings = ({**TUNED, "backend": "openvino", "values": tuned},)
    folder = laid_out("ovms", artifact(backend="openvino", external=True, settings=settings), labels=("cat", "dog"))
    document = json.loads((folder / "config.json").read_text())
    assert fits(document, "ovms-config.json")
    assert not fits({**document, "models": []}, "ovms-config.json")
    config = document["model_config_list"][0]["config"]
    assert config.get("nireq") == tuned.get("streams")
    model = folder / config["base_path"] / "1/model.onnx"
    compiled = openvino.Core().compile_model(str(model), config["target_device"], config["plugin_config"])
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert compiled.get_property("NUM_STREAMS") == tuned.get("streams", 1)
    assert compiled(np.ones((3, 4), np.float32))[0].tolist() == [[4.0, 4.0]] * 3
    assert (folder / "labels.txt").read_text() == "cat\ndog\n"


@pytest.mark.parametrize("backend", [None, "openvino"])
@pytest.mark.parametrize("batch", [None, 2])
def test_the_loader_for_mlflow_needs_no_other_package(artifact, laid_out, backend, batch):
    model = artifact(backend=backend)
    if batch:
        fix_batch(model, batch, backend=backend)
    folder = laid_out("mlflow", model)
    described = yaml.safe_load((folder / "MLmodel").read_text())
    (taken,) = json.loads(described["signature"]["inputs"])
    assert taken["tensor-spec"] == {"dtype": "float32", "shape": [-1, 4]}
    flavour = described["flavors"]["python_function"]
    source = folder / flavour["code"] / f"{flavour['loader_module']}.py"
    spec = importlib.util.spec_from_file_location(flavour["loader_module"], source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    images = np.random.default_rng(0).standard_normal((5, 4), np.float32)
    logits = module._load_pyfunc(str(folder / flavour["data"])).predict(images)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, images @ np.ones((4, 2), np.float32), rtol=1e-5)
    assert "emca_deploy" not in source.read_text()


def test_kserve_takes_the_service_and_triton_its_models(artifact, laid_out):
    folder = laid_out("kserve", artifact(settings=({**TUNED, "backend": "onnxruntime"},)))
    service = yaml.safe_load((folder / "inference-service.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    predictor = service["spec"]["predictor"]["model"]
    assert fits(predictor, "kserve-predictor-model.json")
    assert not fits({**predictor, "storageURI": ""}, "kserve-predictor-model.json")
    assert predictor["resources"]["limits"]["cpu"] == "3"
    name = service["metadata"]["name"]
    assert triton_config(folder / "model_repository" / name / "config.pbtxt").name == name
    session = onnxruntime.InferenceSession(folder / "model_repository" / name / "1/model.onnx")
    assert session.run(None, {"x": np.ones((1, 4), np.float32)})[0].tolist() == [[4.0, 4.0]]


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_model_of_two_inputs_is_refused(artifact, tmp_path, layout):
    model = artifact()
    proto = onnx.load(model)
    proto.graph.input.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1]))
    onnx.save(proto, model)
    write_manifest(model, Manifest("onnx", "", "fp32", preprocessing=Preprocessing(image_size=2)))
    with pytest.raises(BundleError):
        lay_out(BundleRequest((model,), tmp_path / "out"), layout)
    assert not (tmp_path / "out").exists()


def test_programs_and_unknown_layouts_are_refused(artifact, tmp_path):
    with pytest.raises(EmcaError):
        lay_out(BundleRequest((artifact(),), tmp_path / "out", code=("python",)), "triton")
    with pytest.raises(EmcaError):
        lay_out(BundleRequest((artifact(),), tmp_path / "out"), "tritn")
