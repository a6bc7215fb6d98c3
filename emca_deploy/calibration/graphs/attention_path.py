"""Recognising channel attention by its structure, whoever exported it.

A gate is an operand of a Mul that descends from pooled statistics alone and through a sigmoid: every way back from it ends at a
global pooling, none at the network's input. That holds for SE, ECA, SRM, EMCA and PKCAM, whatever reshapes, convolutions or
linear layers an exporter puts in between, and for maps of a single pixel, where shapes tell nothing.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

__all__ = ["AttentionPath", "find_attention", "is_global_pool", "pooling_steps"]

SIGMOIDS = frozenset({"Sigmoid", "HardSigmoid"})


@dataclass(frozen=True)
class AttentionPath:
    """The attention of a graph.

    Attributes:
        gates: each gate's Mul node, with the index of its operand that is the gate.
        nodes: every node between the poolings (not included) and the gates (not included).
        pools: the poolings that feed them.
    """

    gates: dict[ir.Node, int]
    nodes: frozenset[ir.Node]
    pools: frozenset[ir.Node]


def is_global_pool(node: ir.Node) -> bool:
    """Return whether a node squeezes (N, C, H, W) to one number a channel."""
    if node.op_type in {"GlobalAveragePool", "GlobalMaxPool"}:
        return True
    if node.op_type == "AveragePool":
        return _covers_its_map(node)
    if node.op_type != "ReduceMean":
        return False
    attribute = node.attributes.get("axes")
    axes = list(attribute.as_ints()) if attribute is not None else None
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None and node.inputs[1].const_value is not None:
        axes = [int(axis) for axis in np.asarray(node.inputs[1].const_value.numpy()).ravel()]
    return axes is not None and sorted(axis % 4 for axis in axes) in ([2, 3], [2], [3])


def _covers_its_map(node: ir.Node) -> bool:
    """Return whether a pooling's one window is the whole map: the last of a chain of windows, too."""
    value, window, pads = node.inputs[0], node.attributes.get("kernel_shape"), node.attributes.get("pads")
    if value is None or value.shape is None or window is None or (pads is not None and any(pads.as_ints())):
        return False
    return len(value.shape) == 4 and list(value.shape)[2:] == list(window.as_ints())


def pooling_steps(pool: ir.Node) -> list[ir.Node]:
    """Return the poolings in front of a global one that only lead to it, nearest first: the same mean, taken in steps."""
    steps: list[ir.Node] = []
    node = pool
    while True:
        value = node.inputs[0]
        producer = value.producer() if value is not None and node.op_type == "AveragePool" else None
        if value is None or producer is None or producer.op_type != "AveragePool" or len(value.uses()) != 1:
            return steps
        steps.append(producer)
        node = producer


def find_attention(graph: ir.Graph) -> AttentionPath:
    """Find the attention of a graph in one walk back from each candidate Mul."""
    gates: dict[ir.Node, int] = {}
    nodes: set[ir.Node] = set()
    pools: set[ir.Node] = set()
    rooted: dict[ir.Node, bool] = {}
    for node in graph:
        cut = is_global_pool(node) or node.op_type == "Shape"  # a size carries no picture
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
    """Return whether a node is a sigmoid, or the Clip between 0 and 1 that a hard one is written with."""
    if node.op_type != "Clip":
        return node.op_type in SIGMOIDS
    bounds = [value.const_value if value is not None else None for value in node.inputs[1:3]]
    return len(bounds) == 2 and all(
        bound is not None and float(np.asarray(bound.numpy()).ravel()[0]) == end
        for bound, end in zip(bounds, (0, 1), strict=True)
    )


def _is_rooted(value: ir.Value | None, rooted: dict[ir.Node, bool]) -> bool:
    """Return whether a value reaches the network's input by a way that no global pooling cuts."""
    if value is None or value.is_initializer():
        return False
    producer = value.producer()
    return value.is_graph_input() if producer is None else rooted[producer]


def _walk_back(value: ir.Value) -> tuple[set[ir.Node], set[ir.Node]]:
    path: set[ir.Node] = set()
    ends: set[ir.Node] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        producer = current.producer() if current is not None else None
        if producer is None or producer in path or producer in ends or producer.op_type == "Shape":
            continue
        if is_global_pool(producer):
            ends.add(producer)
            continue
        path.add(producer)
        waiting += [operand for operand in producer.inputs if operand is not None]
    return path, ends
