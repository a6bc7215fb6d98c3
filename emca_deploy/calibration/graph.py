"""Reading an ONNX classifier's graph: which tensors are activations, what reads them, what can be quantized."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy.errors import ModelError

__all__ = [
    "WEIGHTED", "activations", "constant", "has_weights", "image_value", "int64_initializer", "load_graph", "only_feeds",
]  # fmt: skip

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
"""Operators that have integer kernels for constant weights."""

PREAMBLE = frozenset({"Cast", "Transpose", "Identity", "Sub", "Div", "Mul", "Add", "BatchNormalization"})
"""What a graph may do to its input before the network begins: another type or layout, and its own normalisation."""


def load_graph(path: Path) -> ir.Model:
    """Load a float ONNX model for quantization.

    Raises:
        ModelError: not an ONNX file, already quantized, in fp16, or not an image classifier's graph.
    """
    try:
        model = ir.load(path)
    except FileNotFoundError as exc:
        raise ModelError(f"{path}: no such file", "check the path") from exc
    except Exception as exc:  # protobuf raises its own DecodeError, onnx-ir several others
        raise ModelError(f"{path}: not an ONNX model, or a damaged one", "export it again") from exc
    if not list(model.graph) or not model.graph.inputs:
        raise ModelError(f"{path}: an ONNX model without nodes", "export it again")
    if any(node.op_type in {"QuantizeLinear", "DequantizeLinear"} for node in model.graph):
        raise ModelError(f"{path}: is quantized already", "name the fp32 model it was made from")
    if any(value.dtype == ir.DataType.FLOAT16 for value in model.graph.initializers.values()):
        raise ModelError(f"{path}: has fp16 weights, and INT8 is made from fp32", "name the fp32 model it was made from")
    common.ShapeInferencePass()(model)
    return model


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
