"""Ranges clipped to what a ReLU passes do not change its output, and these ranges are collected."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.graphs.graph_session import GraphRunner
from emca_deploy.calibration.ranges.collect import _hard_swish_inputs, _observed, _relu_partners
from emca_deploy.calibration.ranges.methods.registry import parse_method
from zoo.recipes import observe

VALUES = arrays(np.float32, 40, elements=st.floats(-8, 8, width=32))


@given(VALUES, VALUES, st.floats(0, 1), st.floats(0, 1))
def test_both_operands_cut_there_leave_the_relu_as_it_is(a, b, first_lower, second_lower):
    """Slightly lower bounds work too: integer ranges end a little below."""
    least_a = min(0, np.maximum(a, -b).min()) - np.float32(first_lower)
    least_b = min(0, np.maximum(b, -a).min()) - np.float32(second_lower)
    cut = np.maximum(np.maximum(a, least_a) + np.maximum(b, least_b), 0)
    assert np.array_equal(cut, np.maximum(a + b, 0))


def test_partners_are_what_only_a_residual_add_reads(exported):
    graph = load_graph(exported("narrow_emca_eca_resnet18")).graph
    partners = {str(value.name): str(other.name) for value, other in _relu_partners(graph).items()}
    assert partners["stage2.block0.attention.mul"] == "stage2.block0.shortcut.conv"
    assert partners["stage2.block0.shortcut.conv"] == "stage2.block0.attention.mul"
    assert partners["stage2.block1.conv2"] == "stage2.block0.relu_1"
    # The attention pools this tensor, and clipping would change its mean.
    assert "stage2.block0.conv2" not in partners
    assert "stage2.block0.relu_1" not in partners


def test_nothing_is_cut_where_something_else_reads_the_sum(exported):
    model = load_graph(exported("narrow_emca_eca_resnet18"))
    (add,) = [node for node in model.graph if node.op_type == "Add" and node.inputs[0].name == "stage2.block1.conv2"]
    model.graph.append(ir.node("Abs", [add.outputs[0]]))
    assert not {"stage2.block1.conv2"} & {str(value.name) for value in _relu_partners(model.graph)}


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_what_is_collected_ends_where_the_relu_cuts(exported, images, method):
    path = exported("narrow_emca_eca_resnet18")
    seen = observe(load_graph(path), images, range(12), 1, None, parse_method(method))
    probe = GraphRunner(load_graph(path), ["stage2.block1.conv2", "stage2.block0.relu_1"], 1)
    branch, shortcut = probe(images.images).values()
    assert branch.min() < np.maximum(branch, -shortcut).min()
    assert seen["stage2.block1.conv2"].minimum == pytest.approx(np.maximum(branch, -shortcut).min(), rel=1e-4)
    assert seen["stage2.block1.conv2"].maximum == pytest.approx(branch.max(), rel=1e-4)


@given(st.floats(0.05, 1), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_hard_swish_does_not_see_what_lies_below_its_zero(alpha, beta, seed):
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    net (float[1,3,6,6] x) => (float[1,3,6,6] y) {{
        c = Abs(x) d = Sub(x, c) h = HardSigmoid<alpha={alpha}, beta={beta}>(d) y = Mul(d, h) }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    ((value, least),) = _hard_swish_inputs(model.graph).items()
    assert value.name == "d"
    assert least == pytest.approx(-beta / alpha, rel=1e-5)
    outputs = list(model.graph.outputs)
    (cut,) = _observed(model.graph, ["d"])
    model.graph.outputs.extend(outputs)
    for node in [use.node for use in value.uses() if use.node is not cut.producer()]:
        for index, operand in enumerate(node.inputs):
            if operand is value:
                node.replace_input_with(index, cut)
    model.graph.sort()
    images = np.random.default_rng(seed).normal(0, 8, (1, 3, 6, 6)).astype(np.float32)
    before = onnxruntime.InferenceSession(onnx.parser.parse_model(text).SerializeToString()).run(None, {"x": images})[0]
    after = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, {"x": images})[0]
    np.testing.assert_allclose(after, before, atol=1e-4)


@pytest.mark.parametrize(
    "body",
    [
        "h = HardSigmoid(d) m = Mul(d, h) y = Add(m, d)",  # another reader needs the whole range
        "h = HardSigmoid(d) m = Mul(d, h) y = Add(m, h)",
        "h = HardSigmoid(d) y = Mul(x, h)",
    ],
)
def test_what_others_read_is_looked_at_whole(body):
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    net (float[1,3,6,6] x) => (float[1,3,6,6] y) {{ d = Neg(x) {body} }}"""
    assert not _hard_swish_inputs(ir.from_proto(onnx.parser.parse_model(text)).graph)
