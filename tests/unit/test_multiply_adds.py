"""Multiply-adds counted by definition: the number of products that each output needs."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from emca_deploy.multiply_adds import known_shapes, multiply_adds, proto_multiply_adds

SMALL = st.integers(1, 4)


@given(SMALL, SMALL, SMALL, SMALL, st.integers(1, 3), st.integers(4, 7))
def test_convolutions_of_any_group_and_batch(batch, groups, in_each, out_each, kernel, side):
    weight = [groups * out_each, in_each, kernel, kernel]
    out = side - kernel + 1
    by_hand = batch * groups * out_each * out * out * in_each * kernel * kernel
    for op_type in ("Conv", "ConvInteger", "QLinearConv"):
        assert (
            multiply_adds(op_type, [batch, groups * in_each, side, side], weight, [batch, groups * out_each, out, out]) == by_hand
        )
    deconvolution = [groups * in_each, out_each, kernel, kernel]
    wider = side + kernel - 1
    expected = batch * groups * in_each * side * side * out_each * kernel * kernel
    returns = [batch, groups * out_each, wider, wider]
    assert multiply_adds("ConvTranspose", [batch, groups * in_each, side, side], deconvolution, returns) == expected


@given(SMALL, SMALL, SMALL, SMALL)
def test_products(batch, rows, inner, columns):
    assert (
        multiply_adds("MatMul", [batch, rows, inner], [inner, columns], [batch, rows, columns]) == batch * rows * inner * columns
    )
    assert multiply_adds("Gemm", [rows, inner], [columns, inner], [rows, columns], transposed=True) == rows * inner * columns
    assert multiply_adds("QGemm", [rows, inner], [inner, columns], [rows, columns]) == rows * inner * columns
    assert multiply_adds("MatMul", [rows, inner], [inner], [rows]) == rows * inner


@pytest.mark.parametrize("shapes", [(None, None, None), ([1, 3], [3, 2], None), ([1, 3], None, [1, 2])])
def test_what_is_not_known_counts_nothing(shapes):
    assert multiply_adds("MatMul", *shapes) == 0
    assert multiply_adds("Relu", [1, 3], [3, 2], [1, 2]) == 0


def test_weights_behind_a_dequantizer_are_found():
    stored = helper.make_tensor("w", TensorProto.INT8, [6, 3, 3, 3], np.ones(162, np.int8))
    scale = helper.make_tensor("s", TensorProto.FLOAT, [], [0.5])
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["wf"]),
        helper.make_node("Conv", ["images", "wf"], ["out"], strides=[2, 2]),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 9, 9])]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 6, 4, 4])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [stored, scale])
    shapes = known_shapes(graph)
    assert proto_multiply_adds(graph.node[1], shapes) == 6 * 4 * 4 * 27
    assert proto_multiply_adds(graph.node[0], shapes) == 0
    inferred = onnx.shape_inference.infer_shapes(helper.make_model(graph)).graph
    assert known_shapes(inferred)["wf"] == [6, 3, 3, 3]
