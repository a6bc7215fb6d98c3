"""Expand nodes that do what the operator behind them does anyway: `x * gate.expand_as(x)`."""

import onnx_ir as ir

from emca_deploy.canonical.edit import constant_of, take_over
from emca_deploy.canonical.shapes import Size, dimensions, known_sizes

__all__ = ["drop_expands"]

BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min"})


def drop_expands(model: ir.Model) -> bool:
    """Remove each Expand whose readers broadcast to the same shape; return whether there was one."""
    graph = model.graph
    known = known_sizes(graph)
    changed = False
    for node in list(graph):
        if node.op_type != "Expand" or node.domain != "":
            continue
        source, wanted, result = node.inputs[0], node.inputs[1], node.outputs[0]
        if source is None or wanted is None or source.shape is None or result.is_graph_output():
            continue
        constant = constant_of(wanted)
        sizes: list[Size] = known.get(wanted, []) if constant is None else [int(size) for size in constant.ravel()]
        if _is_own_shape(source, sizes) or _all_broadcast(result, source, sizes):
            take_over(graph, result, source)
            graph.remove(node, safe=True)
            changed = True
    return changed


def _is_own_shape(source: ir.Value, sizes: list[Size]) -> bool:
    """Return whether expanding to these sizes leaves a tensor as it is: each is 1, or its own."""
    own = dimensions(source) or []
    if not sizes or len(sizes) > len(own):
        return False
    return all(size == 1 or (size is not None and size == side) for size, side in zip(sizes, own[-len(sizes) :], strict=True))


def _all_broadcast(result: ir.Value, source: ir.Value, sizes: list[Size]) -> bool:
    """Return whether each reader's other operand has just these sizes, so that it broadcasts the tensor itself."""
    readers = [(use.node, use.idx) for use in result.uses()]
    rank = len(source.shape) if source.shape is not None else len(sizes) + 1
    if not readers or not sizes or None in sizes or rank > len(sizes):
        return False
    for reader, index in readers:
        if reader.op_type not in BROADCASTING or len(reader.inputs) != 2:
            return False
        other = reader.inputs[1 - index]
        if other is result or dimensions(other) != sizes:
            return False
    return True
