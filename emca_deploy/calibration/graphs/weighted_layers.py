"""Layers with weights: their matrices, and the biases that recovery changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.graph import has_weights
from emca_deploy.canonical.edit import ints_of, set_constant
from emca_deploy.multiply_adds import WEIGHT_INPUT, multiply_adds
from emca_deploy.tasks.detector_layers import values_after

__all__ = [
    "ConvGeometry", "add_to_biases", "bias_of", "conv_geometry", "image_multiply_adds", "multiplying_layers", "output_axis",
    "set_bias", "weight_of", "weight_rows", "weighted_layers",
]  # fmt: skip


LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution's kernel (height, width), strides (vertical, horizontal) and pads (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]


def weighted_layers(graph: ir.Graph) -> dict[str, ir.Node]:
    """Return the convolutions and linear layers of a float graph by node name, in the order they run."""
    return {str(node.name): node for node in graph if node.op_type in LAYERS and has_weights(node)}


def multiplying_layers(graph: ir.Graph) -> list[ir.Node]:
    """Return the operators that multiply and add, in order, but for products of selected boxes, which are no layers."""
    selected = values_after(value for node in graph if node.op_type == "TopK" for value in node.outputs)
    return [node for node in graph if node.op_type in WEIGHT_INPUT and selected.isdisjoint(node.inputs)]


def weight_of(node: ir.Node) -> Float32Array:
    """Return a layer's weights as they are stored, float32.

    Raises:
        ValueError: they are computed.
    """
    value = node.inputs[1]
    if value is None or value.const_value is None:
        raise ValueError(f"{node.name} has no constant weights")
    return np.asarray(value.const_value.numpy(), np.float32)


def output_axis(node: ir.Node) -> int:
    """Return the axis of output channels in a layer's stored weights."""
    if node.op_type == "Conv" or node.attributes.get_int("transB", 0) != 0:
        return 0
    return 1 if node.op_type in {"Gemm", "ConvTranspose"} else -1


def image_multiply_adds(node: ir.Node) -> int:
    """Return a layer's multiply-adds for one image; its number of weights where its output's shape is unknown."""
    index = WEIGHT_INPUT.get(node.op_type, len(node.inputs))
    weight = node.inputs[index] if index < len(node.inputs) else None
    if weight is None or weight.shape is None:
        return 0
    transposed = node.attributes.get_int("transB", 0) != 0
    sizes = [size if isinstance(size, int) else 1 for size in weight.shape]
    found = multiply_adds(
        node.op_type, _sides_of_one(node.inputs[0]), sizes, _sides_of_one(node.outputs[0]), transposed=transposed
    )
    return found or (prod(sizes) if weight.const_value is not None else 0)


def _sides_of_one(value: ir.Value | None) -> list[int] | None:
    """Return the shape of an activation for a batch of 1; None where another size is unknown."""
    sides = list(value.shape)[1:] if value is not None and value.shape is not None else [None]
    return [1, *(side for side in sides if isinstance(side, int))] if all(isinstance(side, int) for side in sides) else None


def weight_rows(node: ir.Node) -> Float32Array:
    """Return a layer's weights as a matrix (output channels, inputs of one output), float32."""
    weight = weight_of(node)
    if output_axis(node) != 0:
        weight = weight.T
    return weight.reshape(len(weight), -1)


def conv_geometry(node: ir.Node) -> ConvGeometry | None:
    """Return a 2-D convolution's geometry; None for one in groups, dilated, transposed, self-padding or of another rank."""
    shape, attributes = weight_of(node).shape, node.attributes
    plain = (
        len(shape) == 4
        and node.op_type == "Conv"
        and attributes.get_int("group", 1) == 1
        and set(ints_of(node, "dilations", [1, 1])) == {1}
        and attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    )
    if not plain:
        return None
    vertical, horizontal = ints_of(node, "strides", [1, 1])
    top, left, bottom, right = ints_of(node, "pads", [0, 0, 0, 0])
    return ConvGeometry((shape[2], shape[3]), (vertical, horizontal), (top, left, bottom, right))


def bias_of(node: ir.Node) -> Float32Array:
    """Return a layer's bias, (output channels,) float32; zeros without one."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if given is None or given.const_value is None:
        return np.zeros(weight_of(node).shape[output_axis(node)], np.float32)
    return np.asarray(given.const_value.numpy(), np.float32).ravel()


def set_bias(graph: ir.Graph, node: ir.Node, bias: Float32Array) -> None:
    """Set the bias of a layer in a float or quantized graph to (output channels,) float32."""
    set_constant(graph, node, 2, f"{node.name}.bias/corrected", bias)


def add_to_biases(graph: ir.Graph, shifts: Mapping[str, Float32Array]) -> None:
    """Add shifts, (output channels,) float32 by node name, to the biases of a float graph's layers."""
    for name, node in weighted_layers(graph).items():
        if name in shifts:
            set_bias(graph, node, bias_of(node) + shifts[name])
