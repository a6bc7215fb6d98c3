"""Multiply-accumulates of an ONNX model's nodes, so that a placement can be weighed rather than counted."""

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy.errors import ModelError
from emca_deploy.onnx_file import OnnxFile

if TYPE_CHECKING:
    import onnx

__all__ = ["node_macs"]


def node_macs(path: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the names of a model's nodes in topological order, and multiply-accumulates for one image of those that have any.

    A node without a name goes by its first output, as TensorRT's parser has it. A product whose shapes are not known has none.

    Raises:
        ModelError: it cannot be read.
    """
    import onnx

    model = OnnxFile.open(path).proto
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError as exc:
        raise ModelError(f"{path}: is not an ONNX file, or is damaged", "export or copy the model again") from exc
    shapes = _shapes(inferred.graph)
    names = tuple(node.name or node.output[0] for node in model.graph.node)
    counts = {name: _macs(node, shapes) for name, node in zip(names, model.graph.node, strict=True)}
    return names, {name: count for name, count in counts.items() if count}


def _shapes(graph: "onnx.GraphProto") -> dict[str, list[int]]:
    """Return every known shape; a dynamic size, which is the batch, counts as 1."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if value.name not in shapes and kind.HasField("shape"):
            shapes[value.name] = [size.dim_value or 1 for size in kind.shape.dim]
    for node in graph.node:  # quantized weights lie behind a DequantizeLinear
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes:
            shapes.setdefault(node.output[0], shapes[node.input[0]])
    return shapes


def _macs(node: "onnx.NodeProto", shapes: dict[str, list[int]]) -> int:
    if node.op_type not in {"Conv", "Gemm", "MatMul"} or len(node.input) < 2:
        return 0
    weight, output = shapes.get(node.input[1]), shapes.get(node.output[0])
    if not weight or not output:
        return 0
    per_image = prod(output[1:])
    if node.op_type == "Conv":
        return per_image * prod(weight[1:])
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return per_image * weight[-1 if transposed else 0]
