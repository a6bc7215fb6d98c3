"""What a ReLU cuts away needs no integers: how far down the two operands of a residual Add matter.

Where relu(a + b) is all that becomes of a, relu(max(a, c) + b) is the same for every c that max(a, -b) never falls below: what
lies beneath ends at zero whichever it is. Convolutions that end a branch often reach twice as far down as that. Ranges that stop
there have finer steps, in exact arithmetic for nothing.
"""

import numpy as np
import onnx_ir as ir

from emca_deploy.calibration.graphs.graph import constant, only_feeds
from emca_deploy.calibration.graphs.graph_session import append_output

__all__ = ["as_hard_swish_sees", "as_relu_sees", "hard_swish_inputs", "relu_partners"]


def relu_partners(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Return, of each tensor that only an Add reads whose sum only ReLUs read, the Add's other operand.

    Both can be cut at once: of two operands whose sum is below zero, neither cut, both at or below zero, lifts it above.
    """
    partners: dict[ir.Value, ir.Value] = {}
    for node in graph:
        if node.op_type != "Add" or len(node.inputs) != 2 or not only_feeds(node.outputs[0], "Relu"):
            continue
        first, second = node.inputs
        if first is None or second is None or first is second or first.producer() is None or second.producer() is None:
            continue
        for value, other in ((first, second), (second, first)):
            if len(value.uses()) == 1 and not value.is_graph_output():
                partners[value] = other
    return partners


def as_relu_sees(graph: ir.Graph, value: ir.Value, partner: ir.Value) -> ir.Value:
    """Append max(value, -partner) to a graph and return it, of the Add's shape: what of `value` changes the ReLU's result."""
    negative = append_output(graph, ir.node("Neg", [partner]), f"{value.name}/least")
    return append_output(graph, ir.node("Max", [value, negative]), f"{value.name}/relu_sees")


def hard_swish_inputs(graph: ir.Graph) -> dict[ir.Value, float]:
    """Return, of each tensor that only x * HardSigmoid(x) reads, the number below which that is always 0."""
    found: dict[ir.Value, float] = {}
    for node in graph:
        value = node.inputs[0] if node.op_type == "HardSigmoid" else None
        uses = list(node.outputs[0].uses())
        if value is None or value.is_graph_output() or value.producer() is None or len(uses) != 1:
            continue
        product = uses[0].node
        alpha, beta = float(node.attributes.get_float("alpha", 0.2)), float(node.attributes.get_float("beta", 0.5))
        readers = {use.node for use in value.uses()}
        if product.op_type == "Mul" and value in product.inputs and readers == {node, product} and alpha > 0:
            found[value] = -beta / alpha
    return found


def as_hard_swish_sees(graph: ir.Graph, value: ir.Value, least: float) -> ir.Value:
    """Append max(value, least) to a graph and return it."""
    bound = constant(graph, f"{value.name}/least_seen", np.array(least, np.float32))
    return append_output(graph, ir.node("Max", [value, bound]), f"{value.name}/hard_swish_sees")
