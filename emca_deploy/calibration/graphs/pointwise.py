"""Functions of one tensor, number by number: activations, however an exporter writes them, and scales and shifts by constants.

SiLU is a Sigmoid and a Mul, HardSwish an Add, a Clip, a Mul and a Div, GELU five nodes or nine. What they have in common is their
origin: every operand is a constant or comes, by such operators alone, from one and the same tensor.
"""

import onnx_ir as ir

__all__ = ["POINTWISE", "constants", "origins"]

POINTWISE = frozenset({
    "Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid", "HardSigmoid",
    "HardSwish", "Swish", "Tanh", "Softplus", "Softsign", "Mish", "Gelu", "Erf", "Exp", "Log", "Sqrt", "Abs",
    "Neg", "Reciprocal", "Sign", "Pow", "Add", "Sub", "Mul", "Div", "Max", "Min", "Where", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "BatchNormalization", "Identity",
})  # fmt: skip
"""Operators that compute each number of their result from one number of each operand, constants besides."""


def constants(graph: ir.Graph) -> set[ir.Value]:
    """Return the tensors that are the same for every image: stored, or computed from what is stored."""
    found = {*graph.initializers.values()}
    for node in graph:
        if all(value is None or value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def origins(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Return, of each tensor of a graph that is a pointwise function of one other, that other; no tensor is its own.

    An origin is no such function itself: of chains it is the first tensor.
    """
    fixed = constants(graph)
    found: dict[ir.Value, ir.Value] = {}
    for node in graph:
        if node.op_type not in POINTWISE or len(node.outputs) != 1:
            continue
        sources = {found.get(value, value) for value in node.inputs if value is not None and value not in fixed}
        if len(sources) == 1:
            found[node.outputs[0]] = sources.pop()
    return found
