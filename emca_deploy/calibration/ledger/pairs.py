"""The Q/DQ pairs of a finished model: which tensors they round, and the same graph with the pairs off, clipping or rounding."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.arrays import Float32Array
from emca_deploy.canonical.edit import constant_of, insert_node, new_constant, producer_of

__all__ = ["Mode", "Pair", "find_pairs", "give_back_relus", "set_pairs", "weight_pair"]

Mode = Literal["off", "clip", "round"]
"""What a Q/DQ pair of an activation does: nothing, only clip to its range, or clip and round."""

_ON_INTEGERS = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Concat"})
"""Operators that also take the integers of a pair."""

_BETWEEN = 4
"""Most operators on integers between a QuantizeLinear and its DequantizeLinear, such as a MaxPool or a Reshape."""


@dataclass(frozen=True)
class Pair:
    """A QuantizeLinear of an activation.

    Attributes:
        name: Name of the tensor that it rounds.
        low, high: Range that it represents, float32 of the scale's shape.
        step: Its scale, float32.
    """

    name: str
    low: Float32Array
    high: Float32Array
    step: Float32Array


def find_pairs(graph: ir.Graph) -> dict[str, Pair]:
    """Return the pairs of a graph's activations by the name of their integers, in the order they are computed."""
    found = {}
    for node in graph:
        value = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        if value is not None and constant_of(value) is None:
            limits = _limits(node)
            if limits is not None:
                found[str(node.outputs[0].name)] = Pair(str(value.name), *limits)
    return found


def give_back_relus(graph: ir.Graph, reference: ir.Graph) -> None:
    """Insert the ReLUs that a quantizer left out because the range of a pair begins at 0; the pair's integers stay the same.

    A pair has one where the reference computes a tensor of its name by a ReLU, or reads it by a ReLU only.
    """
    made = {str(value.name): node.op_type for node in reference for value in node.outputs}
    read = {str(value.name): {use.node.op_type for use in value.uses()} for node in reference for value in node.outputs}
    for node in [each for each in graph if each.op_type == "QuantizeLinear"]:
        given, limits = node.inputs[0], _limits(node)
        if given is None or limits is None or limits[0].size != 1 or limits[0] != 0 or producer_of(given, "Relu") is not None:
            continue
        name = str(given.name)
        if given.producer() is not None and (made.get(name) == "Relu" or read.get(name) == {"Relu"}):
            node.replace_input_with(0, insert_node(graph, node, "Relu", [given], f"{name}/relu", given))


def set_pairs(graph: ir.Graph, mode: Mode, alone: Mapping[str, Mode] | None = None) -> None:
    """Set what pairs do: `alone` has the modes of single pairs by name, all others have `mode`."""
    modes = dict.fromkeys(find_pairs(graph), mode) | dict(alone or {})
    sources = [(node, str(source.outputs[0].name)) for node in graph if (source := _source(node)) is not None]
    for node, name in sources:
        if modes.get(name, "round") != "round":
            ir.convenience.replace_all_uses_with(node.outputs[0], _value(node.inputs[0]), replace_graph_outputs=True)
    for node in list(graph):
        name = str(node.outputs[0].name) if node.outputs else ""
        if modes.get(name, "round") == "round":
            continue
        given = _value(node.inputs[0])
        result = _clipped(graph, node, given) if modes[name] == "clip" else given
        for reader in [use.node for use in node.outputs[0].uses()]:
            if reader.op_type in _ON_INTEGERS:
                for value in reader.outputs:
                    value.type = ir.TensorType(ir.DataType.FLOAT)
        ir.convenience.replace_all_uses_with(node.outputs[0], result, replace_graph_outputs=True)


def _clipped(graph: ir.Graph, node: ir.Node, given: ir.Value) -> ir.Value:
    """Insert the limits of a QuantizeLinear before it, and return its input within them."""
    limits = _limits(node)
    assert limits is not None
    name = node.outputs[0].name
    low, high = (new_constant(graph, f"{name}/{end}", limit) for end, limit in (("low", limits[0]), ("high", limits[1])))
    raised = insert_node(graph, node, "Max", [given, low], f"{name}/raised", given)
    result = insert_node(graph, node, "Min", [raised, high], f"{name}/clipped", given)
    raised.type = result.type = ir.TensorType(given.dtype or ir.DataType.FLOAT)
    return result


def weight_pair(value: ir.Value | None) -> tuple[Float32Array, Float32Array, Float32Array | None] | None:
    """Return the values that a DequantizeLinear of constants gives, its scales in a shape that fits them, and float originals.

    The originals are there where a QuantizeLinear rounds float constants in the graph. None for a tensor of another kind.
    """
    node = producer_of(value, "DequantizeLinear")
    if node is None:
        return None
    originals = None
    integers = constant_of(node.inputs[0])
    scale = constant_of(node.inputs[1])
    if scale is None:
        return None
    rank = integers.ndim if integers is not None else 0
    if integers is None:
        quantize = producer_of(node.inputs[0], "QuantizeLinear")
        floats = None if quantize is None else constant_of(quantize.inputs[0])
        if floats is None:
            return None
        originals, rank = np.asarray(floats, np.float32), floats.ndim
    steps = _shaped(scale, node, rank)
    zero = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    offset = np.float32(0) if zero is None else _shaped(zero.astype(np.float32), node, rank)
    if integers is None:
        assert originals is not None
        low, high = _ends(zero)
        integers = np.clip(np.rint(originals / steps) + offset, low, high)
    values: Float32Array = ((integers.astype(np.float32) - offset) * steps).astype(np.float32)
    return values, np.broadcast_to(steps, values.shape).astype(np.float32), originals


def _limits(node: ir.Node) -> tuple[Float32Array, Float32Array, Float32Array] | None:
    """Return the lowest and the highest value that a QuantizeLinear represents, and its step; None where they are computed."""
    scale = constant_of(node.inputs[1])
    zero = constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if scale is None:
        return None
    value = node.inputs[0]
    rank = len(value.shape) if value is not None and value.shape is not None else 4
    steps = _shaped(np.asarray(scale, np.float32), node, rank)
    offset = np.float32(0) if zero is None else _shaped(zero.astype(np.float32), node, rank)
    low, high = _ends(zero)
    return (low - offset) * steps, (high - offset) * steps, steps


def _ends(zero: npt.NDArray[Any] | None) -> tuple[np.float32, np.float32]:
    limits = np.iinfo(np.uint8 if zero is None else zero.dtype)
    return np.float32(limits.min), np.float32(limits.max)


def _shaped(array: npt.NDArray[Any], node: ir.Node, rank: int) -> Float32Array:
    """Return a scalar as it is, and one number for each index of the node's axis in a shape that broadcasts."""
    values = np.asarray(array, np.float32)
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[node.attributes.get_int("axis", 1) % rank] = -1
    return values.reshape(shape)


def _source(node: ir.Node) -> ir.Node | None:
    """Return the QuantizeLinear of an activation that a DequantizeLinear reads, directly or behind operators on integers."""
    if node.op_type != "DequantizeLinear":
        return None
    value = node.inputs[0]
    for _ in range(_BETWEEN):
        producer = None if value is None else value.producer()
        if producer is None:
            return None
        if producer.op_type == "QuantizeLinear":
            return producer if constant_of(producer.inputs[0]) is None else None
        value = producer.inputs[0] if producer.inputs else None
    return None


def _value(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value
