"""Reading an ONNX classifier's graph: which tensors are activations, what reads them, what can be quantized."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.canonical.canonicalize import CanonicalModel, canonical_model
from emca_deploy.canonical.edit import new_constant
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import Preprocessing

__all__ = [
    "WEIGHTED", "activations", "canonical_graph", "dequantized", "has_weights", "image_value", "load_graph",
    "only_feeds",
]  # fmt: skip

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that have integer kernels for constant weights."""

PREAMBLE = frozenset({"Cast", "Transpose", "Identity", "Sub", "Div", "Mul", "Add", "BatchNormalization"})
"""What a graph may do to its input before the network begins: another type or layout, and its own normalisation."""


def load_graph(path: Path, preprocessing: Preprocessing | None = None, output_name: str | None = None) -> ir.Model:
    """Return the canonical graph of a float ONNX file, for quantization.

    A dynamic height and width are fixed to the image size of `preprocessing`; `output_name` is the logits', where there are
    several.

    Raises:
        ModelError: not an ONNX file, already quantized, or not an image classifier's graph.
        UnknownNameError: there is no output of that name.
    """
    return canonical_graph(path, preprocessing, output_name).model


def canonical_graph(path: Path, preprocessing: Preprocessing | None = None, output_name: str | None = None) -> CanonicalModel:
    """Return the same with how it came about; the parameters and errors are those of `load_graph`."""
    file = OnnxFile.open(path)
    fixed = file.image.height is not None and file.image.width is not None
    size = None if fixed or preprocessing is None else (preprocessing.height, preprocessing.width)
    return canonical_model(file, size, output_name)


def has_weights(node: ir.Node) -> bool:
    """Return whether a node is a convolution or matrix product with constant weights."""
    if node.op_type not in WEIGHTED or len(node.inputs) < 2:
        return False
    weight = node.inputs[1]
    return weight is not None and weight.const_value is not None


def image_value(graph: ir.Graph) -> ir.Value:
    """Return the tensor that a network's first layer reads: the input, or what the graph's own normalisation makes of it."""
    value = next(value for value in graph.inputs if value.name not in graph.initializers)
    while len(uses := list(value.uses())) == 1 and not value.is_graph_output():
        node = uses[0].node
        others = [other for other in node.inputs if other is not value and other is not None]
        if node.op_type not in PREAMBLE or not all(other.is_initializer() or other.const_value is not None for other in others):
            break
        value = node.outputs[0]
    return value


def activations(graph: ir.Graph) -> list[ir.Value]:
    """Return the float tensors that depend on the input, in the order they are computed; the input first."""
    constants = set(graph.initializers.values())
    values = [value for value in graph.inputs if value not in constants]
    values += [output for node in graph for output in node.outputs]
    return [value for value in values if value.dtype in {None, ir.DataType.FLOAT}]


def only_feeds(value: ir.Value, op_type: str) -> bool:
    """Return whether every reader of a tensor is of one operator, and there is one."""
    readers = [use.node for use in value.uses()]
    return bool(readers) and not value.is_graph_output() and all(node.op_type == op_type for node in readers)


def dequantized(
    graph: ir.Graph, node: ir.Node, name: str, tensor: tuple[npt.NDArray[Any], npt.NDArray[Any]], axis: int
) -> ir.Value:
    """Store integers, and return them as the float32 they stand for, computed before the node that will read it.

    `tensor` is int8 or int32 of any shape, and float32 scales, one for each index of `axis`; `name` begins the names of what is
    added.
    """
    integers, scales = tensor
    stored = new_constant(graph, f"{name}/int{8 * integers.dtype.itemsize}", integers)
    scale = new_constant(graph, f"{name}/scale", scales)
    zero = new_constant(graph, f"{name}/zero_point", np.zeros(scales.shape, integers.dtype))
    dequantize = ir.node("DequantizeLinear", [stored, scale, zero], {"axis": axis}, name=f"{name}/dequantize")
    result = dequantize.outputs[0]
    result.name, result.shape, result.dtype = f"{name}/dequantized", ir.Shape(integers.shape), ir.DataType.FLOAT
    graph.insert_before(node, dequantize)
    return result
