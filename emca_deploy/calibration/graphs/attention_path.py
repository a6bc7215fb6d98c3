"""Recognizing channel attention by its structure, whichever exporter wrote it.

A gate is an operand of a Mul that is computed from pooled statistics alone and passes a sigmoid: every way back from it ends at a
global pooling, none at the network's input. This holds for SE, ECA, SRM, EMCA and PKCAM, with any reshapes, convolutions or
linear layers in between, and for maps of one pixel, whose shapes show nothing.
"""

from dataclasses import dataclass

import onnx_ir as ir

from emca_deploy.canonical.edit import sole_producer
from emca_deploy.canonical.pooling import covers_map, reduced_axes

__all__ = ["AttentionPath", "find_attention", "is_global_pool", "pooling_steps"]

SIGMOIDS = frozenset({"Sigmoid", "HardSigmoid"})


@dataclass(frozen=True)
class AttentionPath:
    """The attention of a graph.

    Attributes:
        gates: each gate's Mul node, and the index of its operand that is the gate.
        nodes: every node after the poolings and before the gates' Mul nodes.
        pools: the poolings that these nodes read.
    """

    gates: dict[ir.Node, int]
    nodes: frozenset[ir.Node]
    pools: frozenset[ir.Node]


def is_global_pool(node: ir.Node) -> bool:
    """Return whether a node reduces (N, C, H, W) to one number for each channel."""
    if node.op_type == "ReduceMean":
        return reduced_axes(node) in ([2, 3], [2], [3])
    return node.op_type in {"GlobalAveragePool", "GlobalMaxPool"} or covers_map(node)


def pooling_steps(pool: ir.Node) -> list[ir.Node]:
    """Return the poolings before a global one that only lead to it, nearest first: the same mean, taken in steps."""
    steps = [pool]
    while steps[-1].op_type == "AveragePool" and (before := sole_producer(steps[-1].inputs[0], "AveragePool")) is not None:
        steps.append(before)
    return steps[1:]


def find_attention(graph: ir.Graph) -> AttentionPath:
    """Find the attention of a graph by one walk back from each candidate Mul."""
    gates: dict[ir.Node, int] = {}
    nodes: set[ir.Node] = set()
    pools: set[ir.Node] = set()
    rooted: dict[ir.Node, bool] = {}
    for node in graph:
        cut = is_global_pool(node) or node.op_type in {"ReduceL2", "Shape"}  # a map's norm is one number; a size has no image
        rooted[node] = not cut and any(_is_rooted(value, rooted) for value in node.inputs)
    for node in graph:
        if node.op_type != "Mul" or not rooted[node]:
            continue
        for index, value in enumerate(node.inputs):
            if value is None or _is_rooted(value, rooted) or value.producer() is None:
                continue
            path, ends = _walk_back(value)
            if any(_is_sigmoid(member) for member in path):
                gates[node] = index
                nodes |= path
                pools |= ends
    return AttentionPath(gates, frozenset(nodes), frozenset(pools))


def _is_sigmoid(node: ir.Node) -> bool:
    """Return whether a node is a sigmoid, or the Clip to [0, 1] of a hard sigmoid."""
    if node.op_type != "Clip":
        return node.op_type in SIGMOIDS
    bounds = [value.const_value if value is not None else None for value in node.inputs[1:3]]
    return [float(bound.numpy().ravel()[0]) for bound in bounds if bound is not None] == [0, 1]


def _is_rooted(value: ir.Value | None, rooted: dict[ir.Node, bool]) -> bool:
    """Return whether a value depends on the network's input by a way without a global pooling."""
    if value is None or value.is_initializer():
        return False
    producer = value.producer()
    return value.is_graph_input() if producer is None else rooted[producer]


def _walk_back(value: ir.Value) -> tuple[set[ir.Node], set[ir.Node]]:
    path: set[ir.Node] = set()
    ends: set[ir.Node] = set()
    waiting = [value]
    while waiting:
        producer = waiting.pop().producer()
        if producer is None or producer in path or producer in ends or producer.op_type in {"ReduceL2", "Shape"}:
            continue
        if is_global_pool(producer):
            ends.add(producer)
            continue
        path.add(producer)
        waiting += [operand for operand in producer.inputs if operand is not None]
    return path, ends
