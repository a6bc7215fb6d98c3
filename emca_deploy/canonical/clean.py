"""Cleaning any graph: no Constant nodes, no initializers among the inputs, no Identity or Dropout, a name for each node."""

from collections.abc import Set as AbstractSet

import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy.canonical.edit import take_over

__all__ = ["clean", "name_nodes", "remove_no_ops"]


def clean(model: ir.Model) -> None:
    """Turn Constant nodes into initializers, take initializers out of the inputs, and sort the nodes."""
    common.RemoveInitializersFromInputsPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.TopologicalSortPass()(model)


def remove_no_ops(model: ir.Model, kept: AbstractSet[str]) -> None:
    """Remove Identity, Dropout, a Cast that keeps the type, and what nothing reads; the tensors `kept` keep their names."""
    graph = model.graph
    for node in list(graph):
        if node.outputs and node.outputs[0].name in kept:
            continue
        # onnx-ir's pass for Identity would empty the branches of an If that only pass a tensor on.
        masked = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
        passes = node.op_type == "Identity" or (node.op_type == "Cast" and _keeps_type(node))
        if node.domain == "" and (passes or (node.op_type == "Dropout" and not masked)):
            _bypass(graph, node)
    common.RemoveUnusedNodesPass()(model)


def _keeps_type(node: ir.Node) -> bool:
    source = node.inputs[0]
    return source is not None and source.dtype is not None and node.attributes.get_int("to", 0) == source.dtype.value


def _bypass(graph: ir.Graph, node: ir.Node) -> None:
    """Let readers of a node's first output read its first input."""
    source, result = node.inputs[0], node.outputs[0]
    if source is None or (result.is_graph_output() and (source.is_graph_input() or source.is_graph_output())):
        return
    take_over(graph, result, source)
    graph.remove(node, safe=True)


def name_nodes(model: ir.Model) -> None:
    """Give each node and tensor a name of its own."""
    graph = model.graph
    taken = {node.name for node in graph if node.name}
    doubled: set[str] = set()
    for index, node in enumerate(graph):
        if node.name and node.name not in doubled:
            doubled.add(node.name)
            continue
        base = node.name or f"{node.op_type}_{index}"
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        node.name = name
        taken.add(name)
        doubled.add(name)
    common.NameFixPass()(model)
