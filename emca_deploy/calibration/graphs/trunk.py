"""Which tensors carry images through a network, from the image to the logits; not attention's descriptors.

The operator decides what carries: layers with weights, poolings, what moves numbers without changing them, sums, gates, and
any pointwise function of a tensor that carries. Layers with weights are quantized beyond that, wherever they read maps at all.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import onnx_ir as ir

from emca_deploy.calibration.graphs.attention_path import AttentionPath, is_global_pool
from emca_deploy.calibration.graphs.graph import WEIGHTED, image_value
from emca_deploy.canonical.marks import logits_value

__all__ = ["PASS_THROUGH", "PICKING", "Trunk", "find_trunk"]

PASS_THROUGH = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"})
"""They return the numbers they read, all of them, in another shape or order."""

PICKING = frozenset({"Slice", "Split", "Gather", "DepthToSpace", "SpaceToDepth"})
"""They return some of the numbers they read, or all."""

CARRYING = (
    WEIGHTED
    | PASS_THROUGH
    | PICKING
    | {"Relu", "Clip", "Add", "Mul", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Concat", "Pad", "Resize"}
    | {"ConvTranspose", "Upsample", "Dropout", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "LRN"}
)

HEAD = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "Cast", "Dropout"}) | PASS_THROUGH
"""What may stand between the layer that makes the logits and a graph's output."""

POINTWISE = frozenset({
    "Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid", "HardSigmoid",
    "HardSwish", "Swish", "Tanh", "Softplus", "Softsign", "Mish", "Gelu", "Erf", "Exp", "Log", "Sqrt", "Abs",
    "Neg", "Reciprocal", "Sign", "Pow", "Add", "Sub", "Mul", "Div", "Max", "Min", "Where", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "BatchNormalization", "Identity",
})  # fmt: skip
"""Operators that compute each number of their result from one number of each operand, constants besides: activations, however an
exporter writes them, and scales and shifts. SiLU is a Sigmoid and a Mul, HardSwish an Add, a Clip, a Mul and a Div, GELU five or
nine nodes. What they have in common is their origin: every operand is a constant or comes, by such operators alone, from one
tensor."""


@dataclass(frozen=True)
class Trunk:
    """The tensors and nodes that matter to a placement.

    Attributes:
        values: tensors that carry images.
        maps: those, and whatever else comes from the image by a way that no global pooling cuts, outside attention.
        origins: the tensor that each pointwise function is computed from.
        head: tensors from the logits on, which are never quantized.
        constants: tensors that are the same for every image.
    """

    values: frozenset[ir.Value]
    maps: frozenset[ir.Value]
    origins: dict[ir.Value, ir.Value]
    head: frozenset[ir.Value]
    constants: frozenset[ir.Value]

    def is_pointwise(self, node: ir.Node) -> bool:
        """Return whether a node computes a pointwise function of one tensor."""
        return node.outputs[0] in self.origins


def find_trunk(graph: ir.Graph, attention: AttentionPath) -> Trunk:
    """Find the trunk of a float graph whose attention is known."""
    fixed, functions = _constants(graph), _origins(graph)
    values: set[ir.Value] = {image_value(graph)}
    maps = set(values)
    for node in graph:
        if node in attention.nodes or node in attention.pools:
            continue
        if not is_global_pool(node) and any(value in maps for value in node.inputs):
            maps.update(value for value in node.outputs if value.dtype in {None, ir.DataType.FLOAT})
        if not any(value in values for value in node.inputs):
            continue
        if (
            node in attention.gates
            or node.op_type in CARRYING
            or is_global_pool(node)
            or functions.get(node.outputs[0]) in values
        ):
            values.update(value for value in node.outputs if value.dtype in {None, ir.DataType.FLOAT})
    return Trunk(
        frozenset(values), frozenset(maps | values), functions, frozenset(_head(graph, functions, fixed)), frozenset(fixed)
    )


def _head(graph: ir.Graph, functions: dict[ir.Value, ir.Value], fixed: AbstractSet[ir.Value]) -> set[ir.Value]:
    """Return the logits and what only leads to and from them, back to what the last layer returns; not a file's other outputs."""
    logits = logits_value(graph)
    head = _behind(logits, functions, fixed)
    for output in graph.outputs:
        behind = _behind(output, functions, fixed)
        head |= behind if logits in behind else set()
    return head


def _behind(output: ir.Value, functions: dict[ir.Value, ir.Value], fixed: AbstractSet[ir.Value]) -> set[ir.Value]:
    """Return a tensor and what leads to it, back to what the last layer before it returns."""
    head = {output}
    waiting = [output]
    while waiting:
        producer = waiting.pop().producer()
        if producer is None or not (producer.op_type in HEAD or producer.outputs[0] in functions):
            continue
        for value in producer.inputs:
            if value is not None and value not in fixed and value not in head and not value.is_graph_input():
                head.add(value)
                waiting.append(value)
    return head


def _constants(graph: ir.Graph) -> set[ir.Value]:
    """Return the tensors that are the same for every image: stored, or computed from what is stored."""
    found = {*graph.initializers.values()}
    for node in graph:
        if all(value is None or value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _origins(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Return, of each tensor of a graph that is a pointwise function of one other, that other; no tensor is its own.

    An origin is no such function itself: of chains it is the first tensor.
    """
    fixed = _constants(graph)
    found: dict[ir.Value, ir.Value] = {}
    for node in graph:
        if node.op_type not in POINTWISE or len(node.outputs) != 1:
            continue
        sources = {found.get(value, value) for value in node.inputs if value is not None and value not in fixed}
        if len(sources) == 1:
            found[node.outputs[0]] = sources.pop()
    return found
