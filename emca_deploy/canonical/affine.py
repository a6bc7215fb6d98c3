"""Folding constant factors and terms into the layer before them, and dropping those that change nothing."""

import numpy as np
import onnx_ir as ir

from emca_deploy.arrays import Float64Array
from emca_deploy.canonical.batch_norm import fold_affine
from emca_deploy.canonical.edit import constant_of, only_reader, take_over
from emca_deploy.canonical.shapes import Size, dimensions, known_sizes

__all__ = ["drop_expands", "fold_scales"]

BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min"})

NEUTRAL = {"Mul": 1.0, "Div": 1.0, "Add": 0.0, "Sub": 0.0}
LAYER_RANK = {"Conv": 4, "ConvTranspose": 4, "Gemm": 2}


def fold_scales(model: ir.Model) -> bool:
    """Fold each Mul, Div, Add and Sub with one constant per channel into the layer before it; return whether any was folded.

    Those that multiply by one or add zero are dropped anywhere.
    """
    graph, changed = model.graph, False
    for node in list(graph):
        operand = _constant_operand(node)
        if operand is None:
            continue
        index, constant = operand
        source = node.inputs[index]
        if source is None or source.is_graph_input():
            continue
        same_shape = source.shape is not None and source.shape == node.outputs[0].shape
        if same_shape and np.all(constant == NEUTRAL[node.op_type]):
            if not (node.outputs[0].is_graph_output() and source.is_graph_output()):
                take_over(graph, node.outputs[0], source)
                graph.remove(node, safe=True)
                changed = True
            continue
        layer = source.producer()
        channels = _per_channel(constant, layer) if layer is not None and only_reader(source) is node else None
        if channels is None:
            continue
        if index == 1:  # `fold_affine` reads the first input
            node.replace_input_with(0, source)
        changed |= fold_affine(graph, node, *_scale_and_shift(node.op_type, channels))
    return changed


def _constant_operand(node: ir.Node) -> tuple[int, Float64Array] | None:
    """Return the index of an elementwise node's computed input, and its constant input; None for other nodes."""
    if node.op_type not in NEUTRAL or node.domain != "" or len(node.inputs) != 2:
        return None
    for index in (0, 1) if node.op_type in ("Mul", "Add") else (0,):
        constant = constant_of(node.inputs[1 - index])
        if constant is not None and constant.dtype.kind == "f" and constant_of(node.inputs[index]) is None:
            return index, constant.astype(np.float64)
    return None


def _per_channel(constant: Float64Array, layer: ir.Node) -> Float64Array | None:
    """Return a constant as (C,) where it has one value for each output channel of a layer, or one for all."""
    rank = LAYER_RANK.get(layer.op_type)
    weight = constant_of(layer.inputs[1]) if rank is not None and len(layer.inputs) > 1 else None
    if rank is None or weight is None or weight.ndim != rank:
        return None
    transposed = layer.op_type == "ConvTranspose" or (layer.op_type == "Gemm" and not layer.attributes.get_int("transB", 0))
    channels = weight.shape[1] if transposed else weight.shape[0]
    if constant.size == 1 and constant.ndim <= rank:
        return np.full(channels, float(constant.ravel()[0]))
    padded = (1,) * (rank - constant.ndim) + constant.shape
    return constant.ravel() if padded == (1, channels, *(1,) * (rank - 2)) else None


def _scale_and_shift(op_type: str, channels: Float64Array) -> tuple[Float64Array, Float64Array]:
    one, zero = np.ones_like(channels), np.zeros_like(channels)
    if op_type == "Mul":
        return channels, zero
    if op_type == "Div":
        return 1 / channels, zero
    return one, channels if op_type == "Add" else -channels


def drop_expands(model: ir.Model) -> bool:
    """Remove each Expand whose readers broadcast to the same shape; return whether any was removed."""
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
    """Return whether expanding a tensor to these sizes leaves it as it is: each size is 1 or the tensor's own."""
    own = dimensions(source) or []
    if not sizes or len(sizes) > len(own):
        return False
    return all(size == 1 or (size is not None and size == side) for size, side in zip(sizes, own[-len(sizes) :], strict=True))


def _all_broadcast(result: ir.Value, source: ir.Value, sizes: list[Size]) -> bool:
    """Return whether each reader's other operand has these sizes and broadcasts the tensor itself."""
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
