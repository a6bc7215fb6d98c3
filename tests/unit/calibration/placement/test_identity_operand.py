"""The shortcut operand of a residual Add is found in either order of the operands."""

import numpy as np
import onnx_ir as ir
import pytest

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.graphs.attention_path import find_attention
from emca_deploy.calibration.placement.place import identity_operand, place
from zoo.networks import NETWORKS, to_onnx
from zoo.rewrites import REWRITES


def shortcuts(model):
    graph = ir.from_proto(model).graph
    attention = find_attention(graph)
    adds = [node for node in graph if node.op_type == "Add" and node.name.endswith(".add")]
    return {node.name: node.inputs[identity_operand(node, attention)].name for node in adds}


@pytest.mark.parametrize("network", NETWORKS)
def test_swapped_operands_have_the_same_shortcut(network):
    plain = to_onnx(NETWORKS[network])
    swapped = REWRITES["operands_swapped"].apply(plain, np.random.default_rng(0))
    found = shortcuts(plain)
    assert found
    assert shortcuts(swapped) == found


def test_a_convolution_is_the_shortcut_where_the_branch_has_more_layers():
    found = shortcuts(to_onnx(NETWORKS["residual"]))
    assert found["stage1.block0.add"] == "stage1.block0.shortcut/out"
    assert found["stage1.block1.add"] == "stage1.block0.relu2/out"


def test_tensorrt_quantizes_the_same_operands_whatever_their_order():
    plain = to_onnx(NETWORKS["residual"])
    swapped = REWRITES["operands_swapped"].apply(plain, np.random.default_rng(0))
    quantized = []
    for model in (plain, swapped):
        graph = ir.from_proto(model).graph
        placement = place(graph, find_recipe("tensorrt", 8))
        quantized.append({(str(value.name), node.name) for value, edges in placement.edges.items() for node, _ in edges})
    assert quantized[0] == quantized[1]
