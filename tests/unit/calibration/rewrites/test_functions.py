"""Rewrites of activations and poolings for a backend give the same integers except for ties."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from random_networks import Network, pictures

from emca_deploy.calibration.rewrites.functions import (
    average_pools_as_convolutions,
    clip_hard_sigmoids,
    hard_sigmoids_as_additions,
)

SIDE = 12


def model_of(body: str, zero_point: int, scale: float, of_result: float) -> onnx.ModelProto:
    """Return Q, DQ, some nodes from `x` to `y`, Q, DQ."""
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    net (float[1,3,{SIDE},{SIDE}] images) => (float[1,3,M,K] result)
    <float s = {{{scale}}}, uint8 z = {{{zero_point}}}, float t = {{{of_result}}}, uint8 zero = {{0}}> {{
        q = QuantizeLinear(images, s, z) x = DequantizeLinear(q, s, z)
        {body}
        p = QuantizeLinear(y, t, zero) result = DequantizeLinear(p, t, zero)
    }}"""
    return onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))


def run(model: onnx.ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"images": pictures(1, SIDE)})[0]


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def assert_same_integers(before: np.ndarray, after: np.ndarray, scale: float, halfway: np.ndarray | None = None) -> None:
    """Check that results differ by a step at most, and only few where they are not `halfway` between two integers."""
    steps = np.rint(np.abs(before - after) / scale)
    assert steps.max() <= 1
    # A wrong shift would change most values.
    assert steps[True if halfway is None else ~halfway].sum() <= max(2, 0.2 * steps.size)


@example(0.05, 0.05, 26, 0.005, 0.001)  # every fourth integer is halfway
@given(st.floats(0.02, 1.5), st.floats(0.05, 1), st.integers(1, 254), st.floats(0.005, 0.2), st.floats(0.001, 1 / 255))
def test_hard_sigmoid_is_one_addition_of_integers(alpha, beta, zero_point, scale, of_result):
    before = model_of(f"y = HardSigmoid<alpha={alpha}, beta={beta}>(x)", zero_point, scale, of_result)
    after = ir.from_proto(before)
    assert hard_sigmoids_as_additions(after.graph) == 1
    assert "HardSigmoid" not in kinds(after)
    assert kinds(after).count("Add") == 1
    integers = np.clip(np.rint(pictures(1, SIDE).astype(np.float64) / scale) + zero_point, 0, 255) - zero_point
    halfway = np.abs((alpha * scale * integers + beta) / of_result % 1 - 0.5) < 1e-3
    assert_same_integers(run(before), run(ir.to_proto(after)), of_result, halfway)


@pytest.mark.parametrize(
    "body",
    [
        "y = HardSigmoid(images)",  # does not read integers
        "y = HardSigmoid<beta=-0.1>(x)",
        "h = HardSigmoid(x) y = Relu(h)",
    ],
)
def test_other_hard_sigmoids_are_left_alone(body):
    model = ir.from_proto(model_of(body, 100, 0.05, 1 / 255))
    assert hard_sigmoids_as_additions(model.graph) == 0
    assert "HardSigmoid" in kinds(model)


def test_integers_that_reach_beyond_one_would_not_saturate_there():
    model = ir.from_proto(model_of("y = HardSigmoid(x)", 100, 0.05, 2 / 255))
    assert hard_sigmoids_as_additions(model.graph) == 0


@given(st.floats(0.02, 1.5), st.floats(0, 1), st.booleans(), st.booleans())
def test_openvinos_form_of_hard_sigmoid_and_hard_swish_computes_the_same(alpha, beta, as_swish, twice):
    gate = f"h = HardSigmoid<alpha={1 / 6 if as_swish else alpha}, beta={0.5 if as_swish else beta}>(x)"
    body = f"{gate} m = Mul(h, x) y = Add(m, {'h' if twice else 'm'})"
    before = model_of(body, 100, 0.05, 0.02)
    after = ir.from_proto(before)
    assert clip_hard_sigmoids(after.graph) == 1
    assert "HardSigmoid" not in kinds(after)
    assert_same_integers(run(before), run(ir.to_proto(after)), 0.02)


@given(st.integers(2, 5), st.integers(1, 3), st.integers(0, 1), st.integers(0, 255))
def test_average_poolings_become_convolutions(kernel, stride, pad, zero_point):
    attributes = (
        f"kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}], pads=[{pad},{pad},{pad},{pad}], count_include_pad=1"
    )
    before = model_of(f"y = AveragePool<{attributes}>(x)", zero_point, 0.02, 0.013)
    after = ir.from_proto(before)
    assert average_pools_as_convolutions(after.graph) == 1
    assert_same_integers(run(before), run(ir.to_proto(after)), 0.013)


@pytest.mark.parametrize(
    "attributes",
    [
        "kernel_shape=[3,3], pads=[1,1,1,1]",  # padding is not counted
        f"kernel_shape=[{SIDE},{SIDE}]",
        "kernel_shape=[3,3], strides=[2,2], ceil_mode=1",
    ],
)
def test_other_average_poolings_are_left_alone(attributes):
    model = ir.from_proto(model_of(f"y = AveragePool<{attributes}>(x)", 0, 0.02, 0.02))
    assert average_pools_as_convolutions(model.graph) == 0


def test_the_generators_hard_swish_is_rewritten_for_both_backends():
    net = Network(0)
    output = net.act(net.conv("images", 3, 8), "hardswish_gate")
    model = ir.from_proto(net.model(output))
    assert clip_hard_sigmoids(model.graph) == 1
