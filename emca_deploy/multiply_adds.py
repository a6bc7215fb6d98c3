"""The multiply-adds of ONNX nodes, from the shapes of their inputs and outputs."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

__all__ = ["WEIGHT_INPUT", "known_shapes", "multiply_adds", "proto_multiply_adds"]

WEIGHT_INPUT: Mapping[str, int] = {
    "Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "ConvInteger": 1, "MatMulInteger": 1,
    "FusedConv": 1, "FusedMatMul": 1, "FusedGemm": 1, "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1,
    "QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3,
}  # fmt: skip
"""Index of the input with the weights, or the second factor of a product, by operator."""

_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "FusedConv", "QLinearConv"})

Shape = Sequence[int]


def multiply_adds(
    op_type: str, reads: Shape | None, weight: Shape | None, returns: Shape | None, *, transposed: bool = False
) -> int:
    """Return a node's multiply-adds; 0 for an operator without any, and if a needed shape is unknown.

    Args:
        op_type: operator of ONNX or ONNX Runtime.
        reads: shape of the first input.
        weight: shape of the stored weights.
        returns: shape of the output, with the batch.
        transposed: whether a product's weights are stored as (outputs, inputs), ONNX's `transB`.
    """
    if op_type not in WEIGHT_INPUT or not weight or returns is None:
        return 0
    if op_type in _CONVOLUTIONS:
        return prod(returns) * prod(weight[1:])
    if op_type == "ConvTranspose":
        return prod(reads) * prod(weight[1:]) if reads is not None else 0
    if len(weight) == 1:
        return prod(returns) * weight[0]
    return prod(returns) * weight[-1 if transposed else -2]


def proto_multiply_adds(node: "onnx.NodeProto", shapes: Mapping[str, Shape]) -> int:
    """Return the multiply-adds of a node of a protobuf graph, from shapes by tensor name."""
    index = WEIGHT_INPUT.get(node.op_type)
    if index is None or len(node.input) <= index:
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    found = (shapes.get(name) for name in (node.input[0], node.input[index], node.output[0]))
    return multiply_adds(node.op_type, *found, transposed=transposed)


def known_shapes(graph: "onnx.GraphProto") -> dict[str, list[int]]:
    """Return the shape of every tensor of a protobuf graph with inferred shapes, by name; a dynamic size counts as 1."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind: Any = value.type.tensor_type
        if value.name not in shapes and kind.HasField("shape"):
            shapes[value.name] = [max(size.dim_value, 1) for size in kind.shape.dim]
    for node in graph.node:  # stored integers that become weights
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes:
            shapes.setdefault(node.output[0], shapes[node.input[0]])
    return shapes
