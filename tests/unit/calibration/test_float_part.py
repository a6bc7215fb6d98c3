"""INT8 models with an fp16 float part: types, float32 layers, scales beyond fp16, and the error."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from refusals import refusing

from emca_deploy._progress import silent
from emca_deploy.artifacts import read_manifest
from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.calibration.float_part import check_float_precision, halve_float_part, peaks_of
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.ranges.observers import Observation, TensorRange
from emca_deploy.calibration.ranges.table import RangeTable, TableKey, read_table
from emca_deploy.errors import GateError, InputError, ModelError
from emca_deploy.exporting.half_layers import GATES, POOLED, VARIANCE, attention_nodes, float_beside_int8
from emca_deploy.exporting.half_quantized import SMALLEST_SCALE, to_half_quantized
from zoo.recipes import RECIPES, calibration_options

HALF, FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
ARCHITECTURES = ("se_resnet10", "emca_srm_resnet10", "resnet10")


def calibrated(exported, images, folder: Path, arch: str, precision: str, backend: str = "tensorrt"):
    options = calibration_options(
        backend, "minmax", samples=6, recover="none", float_precision=precision, table=folder / f"{arch}.ranges.json"
    )
    return calibrate_model(exported(arch), images, folder / f"{arch}.{backend}.{precision}.onnx", options)


def float_types(path: Path) -> dict[str, tuple[str, set[int]]]:
    """Return each node's operator and the float types of its inputs and outputs by ONNX's type inference."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {
        node.name: (node.op_type, {types[n] for n in (*node.input, *node.output) if n and types[n] in {HALF, FLOAT}})
        for node in graph.node
    }


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_node_is_of_one_float_type(exported, images, tmp_path, arch):
    made = calibrated(exported, images, tmp_path, arch, "fp16")
    onnx.checker.check_model(str(made.onnx), full_check=True)
    types = float_types(made.onnx)
    assert all(len(found) == 1 for kind, found in types.values() if kind != "Cast")
    quantizers = [found for kind, found in types.values() if kind in {"QuantizeLinear", "DequantizeLinear"}]
    assert {HALF} in quantizers
    trunk = [found for kind, found in types.values() if kind in {"Add", "Gemm", "Conv"}]
    assert trunk.count({HALF}) > len(trunk) / 2
    assert all(found == {FLOAT} for kind, found in types.values() if kind in {"GlobalAveragePool", "Sigmoid", "Sqrt"})


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_integers_are_those_of_plain_int8(exported, images, tmp_path, arch):
    def integers(path: Path) -> dict[str, np.ndarray]:
        found = (onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer)
        names = (tensor.name for tensor in onnx.load(path).graph.initializer)
        return {name: array for name, array in zip(names, found, strict=True) if array.dtype == np.int8 and array.size > 1}

    plain = integers(calibrated(exported, images, tmp_path, arch, "fp32").onnx)
    mixed = integers(calibrated(exported, images, tmp_path, arch, "fp16").onnx)
    assert plain.keys() == mixed.keys()
    assert all(np.array_equal(plain[name], mixed[name]) for name in plain)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_it_costs_next_to_nothing_and_says_so(exported, images, tmp_path, backend):
    made = calibrated(exported, images, tmp_path, "se_resnet10", "fp16", backend)
    assert made.float_part is not None
    db = made.float_part.sqnr_db
    assert db["fp16"] == pytest.approx(db["fp32"], abs=3.0)
    assert db["fp32"] > 28
    assert made.float_part.images == 6
    manifest = read_manifest(made.onnx)
    assert manifest is not None
    assert (manifest.precision, manifest.details["float_precision"]) == ("int8", "fp16")
    assert manifest.details["float_part"]["graph"]["half_nodes"] > 20
    assert made.to_dict()["float_precision"] == "fp16"
    plain = read_manifest(calibrated(exported, images, tmp_path, "se_resnet10", "fp32", backend).onnx)
    assert plain is not None
    assert plain.details["float_precision"] == "fp32"
    assert "float_part" not in plain.details


def test_onnx_runtime_runs_it_as_it_is(exported, images, tmp_path):
    import onnxruntime

    made = calibrated(exported, images, tmp_path, "se_resnet10", "fp16")
    plain = calibrated(exported, images, tmp_path, "se_resnet10", "fp32")
    run = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"images": images.images})[0]
        for path in (made.onnx, plain.onnx)
    ]
    assert run[0].dtype == np.float32
    assert np.abs(run[0] - run[1]).max() < 0.05 * np.abs(run[1]).max()


def test_heavy_layers_of_the_attention_are_halved_and_light_ones_not(exported):
    graph = load_graph(exported("se_resnet18")).graph
    every, kept = attention_nodes(graph), float_beside_int8(graph, {})
    gone = [node for node in every if node not in kept]
    assert {node.op_type for node in gone} == {"Conv", "Relu"}
    assert {node.name.split(".")[0] for node in gone} == {"stage4"}  # 512 * 32 weights
    assert {every[node] for node in gone} == {GATES}
    assert all(kept[node] == reason for node, reason in every.items() if reason in {POOLED, VARIANCE})
    light = load_graph(exported("emca_srm_resnet18")).graph
    assert float_beside_int8(light, {}) == attention_nodes(light)


def test_layers_beyond_fp16_stay_float32(exported, images, tmp_path):
    """An activation of 20,000 is not in an fp16 tensor, and the INT8 convolution after it still reads it."""
    graph = load_graph(exported("resnet10"))
    calibrated(exported, images, tmp_path, "resnet10", "fp32")
    ranges = read_table(tmp_path / "resnet10.ranges.json").ranges
    loud = "stage2.block0.out" if "stage2.block0.out" in ranges else next(n for n in ranges if n.startswith("stage2.block0"))
    keep = float_beside_int8(graph.graph, {loud: 2e4})
    assert keep
    insert_qdq(graph, place(graph.graph, RECIPES["tensorrt"]), ranges)
    to_half_quantized(graph, keep)
    ir.save(graph, tmp_path / "loud.onnx")
    types = float_types(tmp_path / "loud.onnx")
    assert all(types[str(node.name)][1] == {FLOAT} for node in keep)
    assert all(len(found) == 1 for kind, found in types.values() if kind != "Cast")
    onnx.checker.check_model(str(tmp_path / "loud.onnx"), full_check=True)


def small(scale: float, weight_scale: float, opset: int = 20) -> ir.Model:
    """Return a graph of one quantized convolution."""
    text = f"""<ir_version: 9, opset_import: ["": {opset}]>
    net (float[1,1,4,4] images) => (float[1,1,4,4] logits)
    <float s = {{{scale}}}, int8 z = {{0}}, int8[1,1,1,1] w = {{100}}, float[1] ws = {{{weight_scale}}}, int8[1] wz = {{0}},
     int8[1,1,4,4] q, float[1,1,4,4] d, float[1,1,1,1] wd> {{
        q = QuantizeLinear(images, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear<axis = 0>(w, ws, wz)
        logits = Conv(d, wd)
    }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    for index, node in enumerate(model.graph):
        node.name = f"{node.op_type}{index}"
    return model


def constant(model: ir.Model, name: str) -> np.ndarray:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy()


def test_both_ends_of_a_pair_have_the_same_scale():
    model = small(0.1, 0.01)
    to_half_quantized(model, {})
    quantize, dequantize = (node for node in model.graph if node.name in {"QuantizeLinear0", "DequantizeLinear1"})
    scales = [node.inputs[1].const_value.numpy() for node in (quantize, dequantize)]
    assert [scale.dtype for scale in scales] == [np.float32, np.float16]  # it reads the images, which are float32
    assert float(scales[0]) == float(scales[1]) == float(np.float16(0.1))
    assert model.graph.outputs[0].dtype == ir.DataType.FLOAT


def test_weights_too_small_for_fp16_get_a_coarser_scale():
    model = small(0.1, SMALLEST_SCALE / 4)
    to_half_quantized(model, {})
    (integers,) = (tensor for name in model.graph.initializers if (tensor := constant(model, name)).shape == (1, 1, 1, 1))
    assert integers.item() == 25
    assert SMALLEST_SCALE in [float(np.ravel(constant(model, name))[0]) for name in model.graph.initializers]


@pytest.mark.parametrize("scale", [1e-6, 1e5])
def test_activations_out_of_fp16s_range_are_refused(scale):
    with refusing(ModelError, "fp16"):
        to_half_quantized(small(scale, 0.01), {})


def test_an_opset_without_fp16_pairs_is_refused():
    with refusing(ModelError, 17, 19):
        to_half_quantized(small(0.1, 0.01, opset=17), {})


def test_worse_than_rounding_is_refused(exported, images, tmp_path, monkeypatch):
    """The gate refuses a loss above its limit, and a float part without float32 layers whose bias is beyond fp16."""
    path = exported("se_resnet10")
    calibrated(exported, images, tmp_path, "se_resnet10", "fp32")
    graph = load_graph(path)
    insert_qdq(graph, place(graph.graph, RECIPES["tensorrt"]), read_table(tmp_path / "se_resnet10.ranges.json").ranges)
    compared = (load_graph(path, images.preprocessing), images, range(6), 1)
    monkeypatch.setattr("emca_deploy.calibration.float_part.MOST_LOST_DB", -100.0)  # the loss is about 0 dB
    with pytest.raises(GateError):
        halve_float_part(graph.clone(), {}, compared, silent)
    monkeypatch.undo()
    head = next(node for node in graph.graph if node.op_type == "Gemm")
    bias = head.inputs[2]
    assert bias is not None
    bias.const_value = ir.tensor(np.full(10, 7e4, np.float32), name=bias.name)
    with pytest.raises((GateError, ModelError)), np.errstate(over="ignore"):
        halve_float_part(graph, {}, compared, silent)


def test_peaks_are_what_was_seen():
    key = TableKey("", "", None, "mse", 1, 0)
    ranges = {"a": TensorRange(-1, 2), "b": TensorRange(-1, 2, threshold=1.5)}
    assert peaks_of(RangeTable(key, ranges)) == {"a": 2, "b": 1.5}
    assert peaks_of(RangeTable(key, ranges, {"b": Observation(-9, 2)})) == {"a": 2, "b": 9}


@pytest.mark.parametrize(("precision", "backend"), [("fp8", "tensorrt"), ("fp16", "openvino"), ("fp16", "onnxruntime")])
def test_precisions_that_there_are_not(precision, backend):
    with refusing(InputError, precision):
        check_float_precision(precision, RECIPES[backend])
