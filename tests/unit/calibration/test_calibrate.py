"""Quantizing every family for every backend: the quantized layers, the float part, and the SQNR of the result."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from refusals import refusing

from emca_deploy.artifacts import read_manifest
from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.calibration.graphs.attention_path import find_attention
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.ranges.table import read_table, table_path
from emca_deploy.data.choosing import preprocessing_of_file
from emca_deploy.errors import DataError, InputError, ModelError, UnknownNameError
from emca_deploy.preprocessing import PreprocessingOptions
from zoo.recipes import RECIPES, calibration_options, collect_ranges

FAMILIES = [
    f"{family}_resnet18" if family else "resnet18"
    for family in ("", "se", "eca", "srm", "emca_se", "emca_eca", "emca_srm", "pkcam_eca")
]
CASES = [(name.replace("18", "10"), backend) for name in FAMILIES for backend in RECIPES]
"""Every family at depth 10 for every backend; some at full depth for one backend, and in the nightly tier all for all."""
CASES += [("narrow_emca_eca_resnet50", "onnxruntime")]
CASES += [("narrow_emca_srm_resnet18", "tensorrt"), ("narrow_pkcam_eca_resnet18", "tensorrt-rtx")]
CASES += [pytest.param(name, backend, marks=pytest.mark.slow) for name in (*FAMILIES, "emca_eca_resnet50") for backend in RECIPES]


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def sqnr_db(reference: np.ndarray, candidate: np.ndarray) -> float:
    return float(10 * np.log10((reference**2).sum() / ((reference - candidate) ** 2).sum()))


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_every_family_for_every_backend(exported, images, tmp_path, name, backend):
    model = exported(name)
    output = tmp_path / "int8.onnx"
    options = calibration_options(backend, table=tmp_path / "ranges.json", method="minmax", recover="none")
    result = calibrate_model(model, images, output, options)
    onnx.checker.check_model(str(output), full_check=True)
    graph = ir.load(output).graph
    convolutions = sum(1 for node in ir.load(model).graph if node.op_type == "Conv" and not is_attention(node))
    floating = 1 if backend.startswith("tensorrt") else 0  # the first convolution, which reads three channels
    assert result.counts.weighted == convolutions + 1 - floating  # and the head
    if floating:
        assert_what_tensorrt_takes(graph)
    expected = logits(model, images.images[:4])
    assert sqnr_db(expected, logits(output, images.images[:4])) > (28 if name.endswith("10") else 25)


def is_attention(node: ir.Node) -> bool:
    return ".attention." in node.name or node.inputs[1].const_value.shape[1] == 1


def assert_what_tensorrt_takes(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type == "QuantizeLinear":
            assert node.inputs[2].const_value.numpy() == 0
            assert node.inputs[2].const_value.numpy().dtype == np.int8
        if node.op_type == "DequantizeLinear":
            assert node.inputs[0].dtype != ir.DataType.INT32


@pytest.mark.parametrize("backend", RECIPES)
@pytest.mark.parametrize("name", [name.replace("18", "10") for name in FAMILIES])
def test_nothing_is_quantized_inside_the_attention(exported, name, backend):
    graph = ir.load(exported(name)).graph
    attention = find_attention(graph)
    placement = place(graph, find_recipe(backend))
    for value, readers in placement.edges.items():
        for node, _ in readers:
            if node in attention.nodes:  # a pooling's INT8 result may enter; tensors computed inside may not
                assert value.producer() in attention.pools


@pytest.mark.parametrize("name", [pytest.param("srm_resnet18", marks=pytest.mark.slow), "emca_srm_resnet18"])
def test_openvino_computes_srm_right_without_biases(images, tmp_path, once, name):
    """New batch norms have zero biases, with which OpenVINO once confused a tensor's INT8 and float forms."""
    openvino = pytest.importorskip("openvino")

    def export(folder):
        import torch

        from emca_deploy.exporting.exporter import export_onnx
        from emca_deploy.networks.registry import create_model

        torch.manual_seed(0)
        ir.save(export_onnx(create_model(name, num_classes=10).eval(), 64), folder / "model.onnx")

    model = once(f"fresh-{name}", export, keep=True) / "model.onnx"
    output, table = tmp_path / "int8.onnx", tmp_path / "ranges.json"
    calibrate_model(model, images, output, calibration_options("openvino", method="minmax", recover="none", table=table))
    compiled = openvino.Core().compile_model(output, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    assert sqnr_db(logits(model, images.images[:4]), compiled(images.images[:4])[0]) > 25


def test_onnxruntime_keeps_the_trunk_in_int8(exported, images, tmp_path):
    """The runtime's optimised graph contains only integer convolutions, additions and gate products."""
    output = tmp_path / "int8.onnx"
    calibrate_model(
        exported("emca_eca_resnet10"),
        images,
        output,
        calibration_options("onnxruntime", table=tmp_path / "t.json", method="minmax", recover="none"),
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(output), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert kinds.count("QLinearConv") == 12
    assert kinds.count("QLinearAdd") == 4
    assert kinds.count("QLinearMul") == 4
    assert kinds.count("Conv") + kinds.count("FusedConv") == 4  # the four excitations


def test_the_table_is_reused_by_the_next_backend_and_refused_for_another_model(exported, images, tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(exported("resnet10").read_bytes())
    first = calibrate_model(model, images, tmp_path / "a.onnx", calibration_options("openvino", method="minmax", recover="none"))
    second = calibrate_model(
        model, images, tmp_path / "b.onnx", calibration_options("onnxruntime", method="minmax", recover="none")
    )
    assert (first.reused, second.reused) == (False, True)
    assert first.table == table_path(model)
    other = exported("se_resnet10")
    options = calibration_options("openvino", table=first.table, method="minmax", recover="none")
    with refusing(InputError, first.table):
        calibrate_model(other, images, tmp_path / "c.onnx", options)
    assert not (tmp_path / "c.onnx").exists()
    manifest = read_manifest(tmp_path / "a.onnx")
    assert manifest.precision == "int8"
    assert manifest.backend == "openvino"


def test_a_damaged_table_is_refused(exported, images, tmp_path):
    table = tmp_path / "ranges.json"
    for text in ("", "{", "[]", '{"table_version": 99}', json.dumps({"table_version": 1, "key": {}, "ranges": {}})):
        table.write_text(text)
        with refusing(InputError, table):
            read_table(table)


def test_ranges_do_not_depend_on_order(exported, images):
    model = exported("emca_srm_resnet10")
    forward = collect_ranges(model, images, range(12), threads=1)
    backward = collect_ranges(model, images, list(reversed(range(12))), threads=1)
    for name, values in forward.items():
        assert values.minimum == pytest.approx(backward[name].minimum, rel=1e-5, abs=1e-6)
        assert values.maximum == pytest.approx(backward[name].maximum, rel=1e-5, abs=1e-6)


def test_ranges_match_the_tensors_themselves(exported, images, tmp_path):
    """The graph's reductions equal numpy's on the tensor; test_relu_bounds.py tests tensors that a ReLU clips."""
    path = exported("emca_eca_resnet10")
    name = "stage2.block0.conv2"
    model = ir.load(path)
    value = next(node.outputs[0] for node in model.graph if node.name == name)
    model.graph.outputs.append(value)
    ir.save(model, tmp_path / "open.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "open.onnx"), providers=["CPUExecutionProvider"])
    tensor = session.run([value.name], {"images": images.images})[0]
    ranges = collect_ranges(path, images, range(12), threads=1)
    assert ranges[name].minimum == pytest.approx(tensor.min(), rel=1e-5)
    assert ranges[name].maximum == pytest.approx(tensor.max(), rel=1e-5)


def test_infinite_activations_name_tensor_and_image(exported, images):
    images.images[3, 0, 0, 0] = np.inf
    with refusing(DataError, "images", "image 3"):
        collect_ranges(exported("resnet10"), images, range(12), threads=1)


def test_keep_float(exported):
    graph = ir.load(exported("resnet10")).graph
    placement = place(graph, find_recipe("openvino"), ["stage1.*", "head"])
    assert {node.name for node in placement.weighted}.isdisjoint({"head", "stage1.block0.conv1"})
    assert "stage2.block0.conv1" in {node.name for node in placement.weighted}
    with refusing(InputError, "nonsense*"):
        place(graph, find_recipe("openvino"), ["nonsense*"])


def test_bad_models_and_names(tmp_path, exported, images):
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    with pytest.raises(ModelError):
        preprocessing_of_file(empty, PreprocessingOptions())
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(exported("resnet10").read_bytes()[:5000])
    with refusing(ModelError, truncated):
        preprocessing_of_file(truncated, PreprocessingOptions())
    with refusing(UnknownNameError, "openvin"):
        find_recipe("openvin")
    quantized = tmp_path / "int8.onnx"
    calibrate_model(
        exported("resnet10"),
        images,
        quantized,
        calibration_options("openvino", table=tmp_path / "t.json", method="minmax", recover="none"),
    )
    with refusing(ModelError, quantized):
        calibrate_model(
            quantized, images, tmp_path / "twice.onnx", calibration_options("openvino", method="minmax", recover="none")
        )


def test_an_fp16_model_is_quantized_from_its_float32_copy(exported, tmp_path):
    from emca_deploy.exporting.half import to_half

    half = ir.load(exported("resnet10"))
    to_half(half, {})
    ir.save(half, tmp_path / "half.onnx")
    graph = load_graph(tmp_path / "half.onnx").graph
    assert not any(value.dtype == ir.DataType.FLOAT16 for value in graph.initializers.values())
    assert graph.outputs[0].dtype == half.graph.outputs[0].dtype


def test_fewer_images_than_samples_uses_all(exported, images, tmp_path):
    result = calibrate_model(
        exported("resnet10"),
        images,
        tmp_path / "o.onnx",
        calibration_options("openvino", samples=500, method="minmax", recover="none", table=tmp_path / "t"),
    )
    assert result.samples == 12
