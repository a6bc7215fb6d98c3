"""HardSigmoid, HardSwish and SiLU get one form for every way of writing them; other functions do not change."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emca_deploy.canonical.activations import name_activations

CONSTANTS = {"three": 3.0, "zero": 0.0, "six": 6.0, "one": 1.0, "half": 0.5, "sixth": 1 / 6}
HARD_SWISH = {
    "op": "y = HardSwish(x)",
    "hard sigmoid": "h = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(h, x)",
    "clip, divided": "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)",
    "clip, divided first": "a = Add(three, x) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)",
    "relu and min": "a = Add(x, three) r = Relu(a) c = Min(r, six) m = Mul(c, x) y = Mul(m, sixth)",
    "scaled clip": "s = Mul(x, sixth) a = Add(s, half) c = Clip(a, zero, one) y = Mul(x, c)",
}
SILU = {
    "sigmoid": "s = Sigmoid(x) y = Mul(s, x)",
    "exponential": "n = Neg(x) e = Exp(n) d = Add(e, one) y = Div(x, d)",
    "reciprocal": "n = Neg(x) e = Exp(n) d = Add(one, e) r = Reciprocal(d) y = Mul(r, x)",
}
OTHERS = {
    "relu": "y = Relu(x)",
    "clip": "y = Clip(x, zero, six)",
    "elu": "y = Elu(x)",
    "another slope": "a = Add(x, three) c = Clip(a, zero, six) y = Mul(x, c)",
    "two tensors": "s = Sigmoid(x) n = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x) y = Mul(s, n)",
    "tanh": "t = Tanh(x) y = Mul(x, t)",
}


def model_of(body: str, **more: float) -> ir.Model:
    stored = ", ".join(f"float {name}={{{value}}}" for name, value in (CONSTANTS | more).items())
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    net (float[1,2,8,8] x) => (float[1,2,8,8] out) <{stored}> {{ {body} out = Abs(y) }}"""
    model = onnx.parser.parse_model(text)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def run(model: ir.Model) -> np.ndarray:
    x = np.linspace(-9, 9, 128, dtype=np.float32).reshape(1, 2, 8, 8)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, {"x": x})[0]


def rewritten(body: str, **more: float) -> tuple[bool, list[str]]:
    """Return whether a graph was rewritten, and its new operators; check that its outputs are equal."""
    model = model_of(body, **more)
    before = run(model)
    changed = name_activations(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_allclose(run(model), before, rtol=1e-4, atol=1e-5)
    return changed, [node.op_type for node in model.graph]


@pytest.mark.parametrize("name", HARD_SWISH)
def test_every_form_of_hard_swish(name):
    changed, kinds = rewritten(HARD_SWISH[name])
    assert kinds == ["HardSigmoid", "Mul", "Abs"]
    assert changed == (name != "hard sigmoid")


@pytest.mark.parametrize("name", SILU)
def test_every_form_of_silu(name):
    changed, kinds = rewritten(SILU[name])
    assert kinds == ["Sigmoid", "Mul", "Abs"]
    assert changed == (name != "sigmoid")


@pytest.mark.parametrize("name", OTHERS)
def test_other_functions_are_left_alone(name):
    before = [node.op_type for node in model_of(OTHERS[name]).graph]
    assert rewritten(OTHERS[name]) == (False, before)


@given(st.floats(0.05, 2), st.floats(0.1, 0.9), st.sampled_from(["s = Mul(x, k)", "s = Div(x, q)"]))
def test_hard_sigmoids_of_any_slope_are_found(alpha, beta, scale):
    changed, kinds = rewritten(f"{scale} a = Add(s, b) y = Clip(a, zero, one)", k=alpha, q=1 / alpha, b=beta)
    both_ends_are_sampled = -12 * alpha + beta < 0 and 12 * alpha + beta > 1
    assert changed == both_ends_are_sampled
    assert ("HardSigmoid" in kinds) == both_ends_are_sampled


def test_what_others_read_of_the_parts_stays():
    changed, kinds = rewritten("a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) d = Div(m, six) y = Add(d, c)")
    assert changed
    assert sorted(kinds) == ["Abs", "Add", "Add", "Clip", "HardSigmoid", "Mul"]
