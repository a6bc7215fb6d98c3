"""Heavy attention layers get INT8 weights with float arithmetic; nothing else changes."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.placement.weight_only import heavy_pixel_layers, in_place_of, store_as_int8
from emca_deploy.calibration.ranges.table import read_table
from zoo.recipes import RECIPES, calibration_options

CHANNELS, HIDDEN = 6, 4


def pixel_model(*, bias: bool, side: int = 1, kernel: int = 1, batch: str = "N") -> ir.Model:
    """Return a model of one convolution with seeded weights over (batch, 6, side, side)."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((HIDDEN, CHANNELS, kernel, kernel)).astype(np.float32)
    tensors = [onnx.numpy_helper.from_array(weight, "w")]
    if bias:
        tensors.append(onnx.numpy_helper.from_array(rng.standard_normal(HIDDEN).astype(np.float32), "b"))
    out = side - kernel + 1
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["x", "w", *(["b"] if bias else [])], ["y"], name="conv"),
            onnx.helper.make_node("Relu", ["y"], ["z"], name="relu"),
        ],
        "net",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, CHANNELS, side, side])],
        [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [batch, HIDDEN, out, out])],
        tensors,
        value_info=[onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, HIDDEN, out, out])],
    )
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9))


def conv_of(model: ir.Model) -> ir.Node:
    return next(node for node in model.graph if node.op_type == "Conv")


def run(model: ir.Model, images: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": images})[0]


@pytest.mark.parametrize("bias", [False, True])
def test_the_product_is_the_convolution_with_rounded_weights(bias):
    images = np.random.default_rng(1).standard_normal((3, CHANNELS, 1, 1)).astype(np.float32)
    rounded = pixel_model(bias=bias)
    weight = conv_of(rounded).inputs[1]
    scales = np.abs(weight.const_value.numpy()).max(axis=(1, 2, 3), keepdims=True) / 127
    weight.const_value = ir.tensor(np.rint(weight.const_value.numpy() / scales) * scales, name="w")
    model = pixel_model(bias=bias)
    store_as_int8(model.graph, conv_of(model))
    assert run(model, images) == pytest.approx(run(rounded, images), abs=1e-5)
    assert [node.op_type for node in model.graph] == ["DequantizeLinear", "Reshape", "Gemm", "Reshape", "Relu"]
    assert {node.name for node in model.graph} >= {"conv", "relu"}
    assert model.graph.node("relu").inputs[0].name == "y"
    assert model.graph.initializers["conv.weight/int8"].dtype == ir.DataType.INT8


def test_what_is_no_heavy_pixel_layer():
    assert heavy_pixel_layers([conv_of(pixel_model(bias=False))], CHANNELS * HIDDEN)
    assert not heavy_pixel_layers([conv_of(pixel_model(bias=False))], CHANNELS * HIDDEN + 1)
    assert not heavy_pixel_layers([conv_of(pixel_model(bias=False, side=2))], 1)
    assert not heavy_pixel_layers([conv_of(pixel_model(bias=False, side=3, kernel=3))], 1)
    assert not heavy_pixel_layers([pixel_model(bias=False).graph.node("relu")], 1)


def test_only_tensorrt_rtx_stores_weights_so_and_patterns_keep_them_float(exported):
    graph = load_graph(exported("se_resnet18")).graph
    heavy = [node.name for node in place(graph, find_recipe("tensorrt-rtx")).weight_only]
    assert [name.split(".")[:2] for name in heavy] == [["stage4", f"block{index}"] for index in (0, 0, 1, 1)]  # 512 * 32 each
    assert (
        place(graph, find_recipe("tensorrt-rtx"), ["stage4.block1*"]).weight_only
        == place(graph, RECIPES["tensorrt-rtx"]).weight_only[:2]
    )
    assert not any(place(graph, find_recipe(backend)).weight_only for backend in RECIPES if backend != "tensorrt-rtx")


def test_the_count_tells_them_from_quantized_operators(exported, images, tmp_path):
    from emca_deploy.calibration.calibrate import calibrate_model

    table = tmp_path / "t.json"
    options = calibration_options("tensorrt-rtx", table=table, method="minmax", recover="none")
    made = calibrate_model(exported("se_resnet18"), images, tmp_path / "int8.onnx", options)
    assert (made.counts.weighted, made.counts.weighted_float, made.counts.weight_only) == (20, 17, 4)
    assert made.to_dict()["quantized"]["weight_only_operators"] == 4
    graph = load_graph(exported("se_resnet18"))
    counts = insert_qdq(graph, place(graph.graph, RECIPES["tensorrt-rtx"]), read_table(table).ranges)
    assert len(counts.replaced) == 12
    old = next(iter(counts.replaced.values()))
    kept = in_place_of({old: "reaches 2e4"}, counts.replaced)
    assert [node.op_type for node in kept if node is not old] == ["Reshape", "Gemm", "Reshape"]
    assert set(kept.values()) == {"reaches 2e4"}
