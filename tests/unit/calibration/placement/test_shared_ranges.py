"""A max pooling's input and result are quantized with one range."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.ranges.observers import TensorRange

RANGES = {
    "x": TensorRange(-2.0, 2.0),
    "first": TensorRange(0.0, 3.0),
    "pooled": TensorRange(0.0, 2.0),
    "second": TensorRange(0.0, 4.0),
}
POOL = "pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (first)"
NETWORK = """<ir_version: 10, opset_import: ["" : 20]>
network (float[1, 4, 8, 8] x) => (float[1, 4, 1, 1] y)
  <float[4, 4, 3, 3] a, float[4, 4, 3, 3] b, float[4, 4, 2, 2] c>
{
  c1 = Conv <pads = [1, 1, 1, 1]> (x, a)
  first = Relu (c1)
  %s
  c2 = Conv <pads = [1, 1, 1, 1]> (pooled, b)
  %s
  y = GlobalAveragePool (second)
}"""
ALONE = NETWORK % (POOL, "second = Relu (c2)")
READ_TWICE = NETWORK % (POOL, "c3 = Conv <strides = [2, 2]> (first, c) sum = Add (c2, c3) second = Relu (sum)")


def quantized(text: str, backend: str) -> onnx.ModelProto:
    proto = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, side in (("a", 3), ("b", 3), ("c", 2)):
        weight = rng.standard_normal((4, 4, side, side)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weight, name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}{number}"
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    ranges = {**RANGES, "c2": TensorRange(-4.0, 4.0), "c3": TensorRange(-4.0, 4.0), "sum": TensorRange(-4.0, 4.0)}
    insert_qdq(model, place(model.graph, find_recipe(backend, 8)), ranges)
    return ir.to_proto(model)


def scales(model: onnx.ModelProto) -> dict[str, float]:
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {name: float(found[f"{name}/scale"]) for name in ("first", "pooled")}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("text", "highest"), [(ALONE, 2.0), (READ_TWICE, 3.0)])
def test_the_result_has_its_input_range_only_where_something_else_reads_the_input(backend, text, highest):
    assert scales(quantized(text, backend)) == pytest.approx({"first": highest / 255, "pooled": highest / 255}, rel=1e-6)


def test_onnx_runtime_pools_integers(tmp_path):
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(quantized(ALONE, "onnxruntime").SerializeToString(), options, providers=["CPUExecutionProvider"])
    pools = [node for node in onnx.load(options.optimized_model_filepath).graph.node if "MaxPool" in node.op_type]
    assert [node.op_type for node in pools] == ["NhwcMaxPool"]
