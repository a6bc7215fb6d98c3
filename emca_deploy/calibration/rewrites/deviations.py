"""Adding the squared deviations of a map in pieces, which OpenVINO computes faster; exact but for the order of sums."""

from math import prod

import numpy as np
import onnx_ir as ir

from emca_deploy.canonical.edit import insert_node, int64_constant, new_constant, producer_of, sole_producer

__all__ = ["add_deviations"]

PIECES = (4, 7, 5, 3, 2)
"""Numbers of pieces, in order of preference. With more than seven, OpenVINO needs a second kernel."""

FEWEST = 2**18
"""Number of a map's values for one image from which pieces are faster; the squares of smaller maps stay in a core's cache."""


def add_deviations(graph: ir.Graph) -> int:
    """Split each large quantized map along its rows, and square and add the pieces; return the number of maps.

    The pattern is `GlobalAveragePool(d * d)` with `d = x - mean` (N, C, H, W) and x behind a DequantizeLinear. OpenVINO writes
    d * d as float and reads it again for the mean. One kernel subtracts, squares and adds all pieces, and writes less.
    """
    found = [(node, square) for node in list(graph) if (square := _squares(node)) is not None]
    return sum(_split(graph, node, square) for node, square in found)


def _squares(pool: ir.Node) -> ir.Node | None:
    """Return the Mul that squares the deviations of a quantized map, if a pooling is its only reader; None for other nodes."""
    square = sole_producer(pool.inputs[0], "Mul") if pool.op_type == "GlobalAveragePool" else None
    if square is None or square.inputs[0] is not square.inputs[1]:
        return None
    centred = producer_of(square.inputs[0], "Sub")
    if centred is None or producer_of(centred.inputs[0], "DequantizeLinear") is None:
        return None
    return square if all(use.node is square for use in centred.outputs[0].uses()) else None


def _split(graph: ir.Graph, pool: ir.Node, square: ir.Node) -> bool:
    """Write the mean of a map's squared deviations as that of added pieces; return whether its size allows it."""
    centred = producer_of(square.inputs[0])
    assert centred is not None  # `_squares` looked at it
    (source, mean), pooled = centred.inputs, pool.outputs[0]
    sides = list(source.shape) if source is not None and source.shape is not None else []
    known = [side for side in sides[1:] if isinstance(side, int)]
    if source is None or len(known) != 3 or prod(known) < FEWEST:
        return False
    height = known[1]
    count = next((pieces for pieces in PIECES if height % pieces == 0), 0)
    if not count:
        return False
    name, shape = str(pool.name), ir.Shape([*sides[:2], height // count, sides[3]])
    rows = int64_constant(graph, f"{name}.split.rows", [height // count] * count)
    split = ir.node("Split", [source, rows], {"axis": 2}, num_outputs=count, name=f"{name}.split")
    graph.insert_before(pool, split)
    total: ir.Value | None = None
    for number, piece in enumerate(split.outputs):
        piece.name, piece.shape, piece.type = f"{name}.piece{number}", shape, source.type
        deviation = insert_node(graph, pool, "Sub", [piece, mean], f"{name}.deviation{number}", piece)
        term = insert_node(graph, pool, "Mul", [deviation, deviation], f"{name}.square{number}", piece)
        total = term if total is None else insert_node(graph, pool, "Add", [total, term], f"{name}.sum{number}", piece)
    added = insert_node(graph, pool, "GlobalAveragePool", [total], f"{name}.added", pooled)
    share = new_constant(graph, f"{name}.share", np.array(1 / count, np.float32))
    averaged = insert_node(graph, pool, "Mul", [added, share], f"{name}.averaged", pooled)
    ir.convenience.replace_all_uses_with(pooled, averaged)
    graph.remove([pool, square, centred], safe=True)
    return True
