"""Reading an ONNX classifier's graph: which tensors are activations, what reads them, what can be quantized."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.canonical.canonicalize import CanonicalModel, canonical_model
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import Preprocessing

__all__ = [
    "WEIGHTED", "activations", "canonical_graph", "constant", "has_weights", "image_value", "int64_initializer", "load_graph",
    "only_feeds",
]  # fmt: skip

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that have integer kernels for constant weights."""

PREAMBLE = frozenset({"Cast", "Transpose", "Identity", "Sub", "Div", "Mul", "Add", "BatchNormalization"})
"""What a graph may do to its input before the network begins: another type or layout, and its own normalisation."""


def load_graph(path: Path, preprocessing: Preprocessing | None = None, output_name: str | None = None) -> ir.Model:
    """Return the canonical graph of a float ONNX file, for quantization.

    Args:
        path: the file.
        preprocessing: a dynamic height and width are fixed to its image size.
        output_name: the output with the logits, where the file has several.

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


def constant(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """Return a new initializer of a graph with an array's shape and dtype."""
    # `ir.tensor` looks for a dozen protocols in what it is given, a third of the time that quantizing a network takes.
    value = ir.Value(name=name, const_value=ir.Tensor(array, name=name), shape=ir.Shape(array.shape))
    value.dtype = ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def int64_initializer(graph: ir.Graph, name: str, numbers: Sequence[int]) -> ir.Value:
    """Return a new initializer of a graph: int64 (n,), as shapes, axes and bounds are."""
    return constant(graph, name, np.array(numbers, np.int64))
