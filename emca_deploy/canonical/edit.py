"""Small edits of a graph that the rules share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.canonical.marks import LOGITS

__all__ = [
    "constant_of", "insert_node", "int64_constant", "ints_of", "new_constant", "only_reader", "producer_of", "replace_node",
    "set_constant", "sole_producer", "take_over",
]  # fmt: skip


def constant_of(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """Return the value of an initializer; None where a value is computed, absent or an input."""
    if value is None or not value.is_initializer() or value.const_value is None or value.is_graph_input():
        return None
    return np.asarray(value.const_value.numpy())


def producer_of(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node that computes a tensor; None where there is none, or where it is none of these operators."""
    producer = value.producer() if value is not None else None
    return producer if producer is not None and (not op_types or producer.op_type in op_types) else None


def sole_producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node that computes a tensor, as `producer_of`; None where the tensor does not have exactly one reader."""
    return producer_of(value, *op_types) if value is not None and len(value.uses()) == 1 else None


def only_reader(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads a tensor, once; None where there are others, or the tensor is an output of the graph."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def new_constant(graph: ir.Graph, wanted: str, array: npt.NDArray[Any]) -> ir.Value:
    """Return a new initializer with an array's shape and dtype; a number is added to a name that is taken."""
    name, number = wanted, 0
    while name in graph.initializers:
        number += 1
        name = f"{wanted}_{number}"
    # `ir.tensor` checks its argument for a dozen protocols, which takes a third of the time of quantizing a network.
    value = ir.Value(name=name, const_value=ir.Tensor(array, name=name), shape=ir.Shape(array.shape))
    value.dtype = ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def int64_constant(graph: ir.Graph, wanted: str, numbers: Sequence[int]) -> ir.Value:
    """Return a new initializer, int64 (n,), for a shape, axes or bounds."""
    return new_constant(graph, wanted, np.array(numbers, np.int64))


def ints_of(node: ir.Node, name: str, default: list[int]) -> list[int]:
    """Return the integers of a node's attribute, or the default."""
    attribute = node.attributes.get(name)
    return list(attribute.as_ints()) if attribute is not None else default


def set_constant(graph: ir.Graph, node: ir.Node, index: int, wanted: str, array: npt.NDArray[Any]) -> None:
    """Give a node a new constant as an input; the old one stays for other readers."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, new_constant(graph, wanted, array))


def insert_node(
    graph: ir.Graph,
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    like: ir.Value,
    *,
    shape: ir.Shape | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> ir.Value:
    """Insert a node before another one; return its result, which has the node's name, and type and shape of `like`."""
    node = ir.node(op_type, inputs, attributes, name=name)
    result = node.outputs[0]
    result.name, result.shape, result.type = name, like.shape if shape is None else shape, like.type
    graph.insert_before(before, node)
    return result


def replace_node(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put a node with one output in the place of another: its position, name, output name, shape and readers."""
    result, before = new.outputs[0], old.outputs[0]
    result.shape, result.type = before.shape, before.type
    new.name = old.name
    result.name, before.name = before.name, f"{before.name}/before"
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(before, result, replace_graph_outputs=True)
    graph.remove(old, safe=True)


def take_over(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let all readers of a tensor and the graph's outputs read another one; it takes the name of an output or of the logits."""
    if old.is_graph_output() or old.name == graph.metadata_props.get(LOGITS):
        new.name, old.name = old.name, f"{old.name}/before"
        new.shape, new.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
