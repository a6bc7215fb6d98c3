"""Reading the graph of an ONNX classifier or detector: its activations, what reads them, and what can be quantized."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.canonical.batch import image_value_of
from emca_deploy.canonical.canonicalize import CanonicalModel, canonical_model
from emca_deploy.canonical.edit import new_constant
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import Preprocessing

__all__ = [
    "WEIGHTED", "all_values", "canonical_graph", "dequantized", "has_weights", "image_value", "load_graph", "only_feeds",
]  # fmt: skip

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that have integer kernels for constant weights."""

PREAMBLE = frozenset({"Cast", "Transpose", "Identity", "Sub", "Div", "Mul", "Add", "BatchNormalization"})
"""Operators that a graph may apply to its input before the network begins: conversions and normalization."""


def load_graph(path: Path, preprocessing: Preprocessing | None = None, output_name: str | None = None) -> ir.Model:
    """Return the canonical graph of a float ONNX file, for quantization.

    A dynamic height and width are fixed to the image size of `preprocessing`; `output_name` names the logits among several
    outputs.

    Raises:
        ModelError: the file is no float image classifier or detector in ONNX.
        UnknownNameError: there is no output of that name.
    """
    return canonical_graph(path, preprocessing, output_name).model


def canonical_graph(path: Path, preprocessing: Preprocessing | None = None, output_name: str | None = None) -> CanonicalModel:
    """Return the canonical graph and how it was made; parameters and errors are those of `load_graph`."""
    file = OnnxFile.open(path)
    fixed = file.image.height is not None and file.image.width is not None
    size = None if fixed or preprocessing is None else (preprocessing.height, preprocessing.width)
    return canonical_model(file, size, output_name)


def has_weights(node: ir.Node) -> bool:
    """Return whether a node is a convolution or matrix product with constant weights."""
    weight = node.inputs[1] if node.op_type in WEIGHTED and len(node.inputs) > 1 else None
    return weight is not None and weight.const_value is not None


def image_value(graph: ir.Graph) -> ir.Value:
    """Return the tensor that the first layer reads: the input, or the result of the graph's own normalization."""
    value = image_value_of(graph)
    while len(uses := list(value.uses())) == 1 and not value.is_graph_output():
        node = uses[0].node
        others = [other for other in node.inputs if other is not value and other is not None]
        if node.op_type not in PREAMBLE or not all(other.is_initializer() or other.const_value is not None for other in others):
            break
        value = node.outputs[0]
    return value


def all_values(graph: ir.Graph) -> list[ir.Value]:
    """Return a graph's inputs, then the results of its nodes in the order they are computed."""
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def only_feeds(value: ir.Value, op_type: str) -> bool:
    """Return whether a tensor has readers, all of one operator, and is no output of the graph."""
    return not value.is_graph_output() and {use.node.op_type for use in value.uses()} == {op_type}


def dequantized(
    graph: ir.Graph, node: ir.Node, name: str, tensor: tuple[npt.NDArray[Any], npt.NDArray[Any]], axis: int
) -> ir.Value:
    """Store integers and dequantize them before a node; return the float32 result.

    `tensor` holds int8 or int32 integers of any shape, and float32 scales, one for each index of `axis`. `name` is the prefix of
    all new names.
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
