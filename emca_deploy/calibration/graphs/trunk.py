"""Finding the tensors that carry images through a network, from the image to the last layers, without attention's descriptors.

The operator decides: layers with weights, poolings, sums, gates, operators that move numbers without changing them, and pointwise
functions of a tensor that carries images. Layers with weights are also quantized wherever else they read maps.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import onnx_ir as ir

from emca_deploy.calibration.graphs.attention_path import AttentionPath, find_attention, is_global_pool
from emca_deploy.calibration.graphs.graph import WEIGHTED, has_weights, image_value
from emca_deploy.canonical.marks import compared_values
from emca_deploy.tasks.detector_layers import CROPS, values_after

__all__ = ["PASS_THROUGH", "PICKING", "Trunk", "find_trunk"]

PASS_THROUGH = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"})
"""Operators that return all the numbers they read, in another shape or order."""

PICKING = frozenset({"Slice", "Split", "Gather", "DepthToSpace", "SpaceToDepth"})
"""Operators that return some or all of the numbers they read."""

CARRYING = (
    WEIGHTED
    | PASS_THROUGH
    | PICKING
    | {"Relu", "Clip", "Add", "Mul", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Concat", "Pad", "Resize"}
    | {"Upsample", "Dropout", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "LRN"}
    | CROPS.keys()
)

HEAD = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "Cast", "Dropout"}) | PASS_THROUGH
"""Operators that may stand between the layer that makes the logits and a graph's output."""

POINTWISE = frozenset({
    "Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid", "HardSigmoid",
    "HardSwish", "Swish", "Tanh", "Softplus", "Softsign", "Mish", "Gelu", "Erf", "Exp", "Log", "Sqrt", "Abs",
    "Neg", "Reciprocal", "Sign", "Pow", "Add", "Sub", "Mul", "Div", "Max", "Min", "Where", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "BatchNormalization", "Identity",
})  # fmt: skip
"""Operators that compute each number of their result from one number of each operand: activations in any form, scales and shifts.
SiLU is a Sigmoid and a Mul, GELU five or nine nodes. Nodes of one such function have one origin: each operand is a constant or
comes from that tensor by such operators alone."""


@dataclass(frozen=True)
class Trunk:
    """The tensors that matter to a placement.

    Attributes:
        attention: the graph's attention.
        values: tensors that carry images.
        maps: these, and all others outside attention that come from the image without a global pooling.
        origins: each pointwise function's result, and the tensor that it is computed from.
        head: tensors from the last layers' results on, which are never quantized.
    """

    attention: AttentionPath
    values: frozenset[ir.Value]
    maps: frozenset[ir.Value]
    origins: dict[ir.Value, ir.Value]
    head: frozenset[ir.Value]

    def is_pointwise(self, node: ir.Node) -> bool:
        """Return whether a node computes a pointwise function of one tensor."""
        return node.outputs[0] in self.origins


def find_trunk(graph: ir.Graph) -> Trunk:
    """Find the trunk of a float graph."""
    attention = find_attention(graph)
    fixed = _constants(graph)
    functions = _origins(graph, fixed)
    head = _head(graph, functions, fixed)
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
    return Trunk(attention, frozenset(values), frozenset(maps | values), functions, head)


def _head(graph: ir.Graph, functions: dict[ir.Value, ir.Value], fixed: AbstractSet[ir.Value]) -> frozenset[ir.Value]:
    """Return the tensors from the last layers' results on, up to crops of regions; not a file's other outputs."""
    compared = compared_values(graph)
    ways = [_back_to_layer(output, functions, fixed) for output in (*compared, *graph.outputs)]
    after = [values_after([value]) for value in compared]
    ends = [values for values in after if not any(has_weights(use.node) for value in values for use in value.uses())]
    return frozenset().union(*ends, *(way for way in ways if not way.isdisjoint(compared)))


def _back_to_layer(output: ir.Value, functions: dict[ir.Value, ir.Value], fixed: AbstractSet[ir.Value]) -> set[ir.Value]:
    """Return a tensor and the tensors that lead to it, back to the result of the last layer before it."""
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
    """Return the tensors that are the same for every image: initializers, and what is computed from them alone."""
    found = {*graph.initializers.values()}
    for node in graph:
        if all(value is None or value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _origins(graph: ir.Graph, fixed: AbstractSet[ir.Value]) -> dict[ir.Value, ir.Value]:
    """Return each tensor that is a pointwise function of one other, and that other; the origin of a chain is its first tensor."""
    found: dict[ir.Value, ir.Value] = {}
    for node in graph:
        if node.op_type not in POINTWISE or len(node.outputs) != 1:
            continue
        sources = {found.get(value, value) for value in node.inputs if value is not None and value not in fixed}
        if len(sources) == 1:
            found[node.outputs[0]] = sources.pop()
    return found
