"""Small edits of a graph that the rules share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.canonical.marks import LOGITS

__all__ = [
    "constant_of",
    "fresh_name",
    "int64_constant",
    "ints_of",
    "new_constant",
    "only_reader",
    "replace_node",
    "set_constant",
]


def constant_of(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """Return the value of an initializer, or None for what is computed or absent."""
    if value is None or not value.is_initializer() or value.const_value is None or value.is_graph_input():
        return None
    return np.asarray(value.const_value.numpy())


def only_reader(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads a tensor, once; None where there are others or it is an output of the graph."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def fresh_name(graph: ir.Graph, wanted: str) -> str:
    """Return `wanted`, or `wanted` with a number where an initializer has that name."""
    name, number = wanted, 0
    while name in graph.initializers:
        number += 1
        name = f"{wanted}_{number}"
    return name


def new_constant(graph: ir.Graph, wanted: str, array: npt.NDArray[Any]) -> ir.Value:
    """Return a new initializer, named `wanted` or nearly so, with an array's shape and dtype."""
    name = fresh_name(graph, wanted)
    # `ir.tensor` looks for a dozen protocols in what it is given, a third of the time that quantizing a network takes.
    value = ir.Value(name=name, const_value=ir.Tensor(array, name=name), shape=ir.Shape(array.shape))
    value.dtype = ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def int64_constant(graph: ir.Graph, wanted: str, numbers: Sequence[int]) -> ir.Value:
    """Return a new initializer of a graph: int64 (n,), as shapes, axes and bounds are."""
    return new_constant(graph, wanted, np.array(numbers, np.int64))


def ints_of(node: ir.Node, name: str, default: list[int]) -> list[int]:
    """Return the integers of a node's attribute; the default where it has none of that name."""
    attribute = node.attributes.get(name)
    return list(attribute.as_ints()) if attribute is not None else default


def set_constant(graph: ir.Graph, node: ir.Node, index: int, wanted: str, array: npt.NDArray[Any]) -> None:
    """Give a node another constant input; one that other nodes read is left as it is."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, new_constant(graph, wanted, array))


def replace_node(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put a node with one output in the place of another: position, name, output name, shape and readers."""
    result, before = new.outputs[0], old.outputs[0]
    result.shape, result.type = before.shape, before.type
    new.name = old.name
    result.name, before.name = before.name, f"{before.name}/before"
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(before, result, replace_graph_outputs=True)
    graph.remove(old, safe=True)


def take_over(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let all readers of a tensor, and the graph's outputs, read another one, which takes its name where it has a role."""
    if old.is_graph_output() or old.name == graph.metadata_props.get(LOGITS):
        new.name, old.name = old.name, f"{old.name}/before"
        new.shape, new.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
