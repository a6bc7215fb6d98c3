"""The structure of a detector's graph: its last layers, and the regions that its heads crop.

A detector selects boxes by their scores, crops regions and selects again. Numbers can be compared up to a selection only: after
it, a small error changes the order of rows.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from emca_deploy.multiply_adds import WEIGHT_INPUT

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["CROPS", "last_results", "values_after", "values_before"]

CROPS = {"RoiAlign": 1, "GridSample": 1}
"""Operators that crop regions from a map, and the index of the input that says where."""

PICKS = frozenset({"Gather", "GatherElements", "GatherND"})


def last_results(graph: "ir.Graph") -> list["ir.Value"]:
    """Return the results of the layers with weights that no other one reads, in the order they run.

    A selection counts as an end. These are the class logits, deltas and mask logits, as the layers return them.
    """
    reads: dict[ir.Value, bool] = {}
    found = []
    for node in reversed(graph):
        leads = any(reads.get(value, False) for value in node.outputs)
        for index, value in enumerate(node.inputs):
            if value is not None and (leads or _has_weights(node)) and not _selects(node, index):
                reads[value] = True
        if _has_weights(node) and not leads:
            found.append(node.outputs[0])
    return found[::-1]


def _has_weights(node: "ir.Node") -> bool:
    weight = node.inputs[1] if WEIGHT_INPUT.get(node.op_type) == 1 and len(node.inputs) > 1 else None
    return weight is not None and weight.const_value is not None


def _selects(node: "ir.Node", index: int) -> bool:
    """Return whether an input of a node decides which numbers are read, or numbers are picked from it by computed indices."""
    if node.op_type == "TopK" or CROPS.get(node.op_type) == index:
        return True
    indices = node.inputs[1] if node.op_type in PICKS else None
    return indices is not None and indices.const_value is None


def values_after(values: "Iterable[ir.Value]") -> "set[ir.Value]":
    """Return some tensors and all that are computed from them, but for crops of regions that they say."""
    found = set(values)
    waiting = list(found)
    while waiting:
        for use in waiting.pop().uses():
            if CROPS.get(use.node.op_type) != use.idx:
                new = [value for value in use.node.outputs if value not in found]
                found.update(new)
                waiting += new
    return found


def values_before(values: "Iterable[ir.Value]") -> "set[ir.Value]":
    """Return some tensors and all that they are computed from."""
    found = set(values)
    waiting = list(found)
    while waiting:
        producer = waiting.pop().producer()
        for value in producer.inputs if producer is not None else ():
            if value is not None and value not in found:
                found.add(value)
                waiting.append(value)
    return found
