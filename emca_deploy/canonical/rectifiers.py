"""One form for operators that clip values: Relu, and Clip with both bounds."""

import numpy as np
import onnx_ir as ir

from emca_deploy.canonical.edit import constant_of, new_constant, only_reader, replace_node

__all__ = ["rectify"]

HUGE = float(np.finfo(np.float16).max)
"""Bound that no activation of an image classifier reaches: the largest float16."""

Bounds = tuple[float, float]


def rectify(model: ir.Model) -> bool:
    """Write every form of max(x, 0) as Relu and of min(max(x, low), high) as Clip; return whether any changed."""
    graph, changed = model.graph, False
    for node in list(graph):
        cut = _cut(node)
        if cut is None:
            continue
        source, bounds = cut
        inner = source.producer()
        before = _cut(inner) if inner is not None and only_reader(source) is node else None
        if before is not None:
            source, bounds = before[0], _nested(before[1], bounds)
        elif node.op_type == _form(bounds):
            continue
        if _form(bounds) is None:
            continue
        if _form(bounds) == "Relu":
            new = ir.node("Relu", [source])
        else:
            ends = zip(("min", "max"), bounds, strict=True)
            numbers = [new_constant(graph, f"{node.name}.{end}", np.array(bound, np.float32)) for end, bound in ends]
            new = ir.node("Clip", [source, *numbers])
        replace_node(graph, node, new)
        if before is not None and inner is not None:
            graph.remove(inner, safe=True)
        changed = True
    return changed


def _form(bounds: Bounds) -> str | None:
    """Return the operator for two bounds; None where neither Relu nor Clip fits."""
    low, high = bounds
    if low == 0 and high >= HUGE:
        return "Relu"
    return "Clip" if low > -HUGE and high < HUGE else None


def _nested(inner: Bounds, outer: Bounds) -> Bounds:
    """Return the bounds of two clippings, one after the other."""
    return min(max(inner[0], outer[0]), outer[1]), min(max(inner[1], outer[0]), outer[1])


def _cut(node: ir.Node) -> tuple[ir.Value, Bounds] | None:
    """Return the tensor that a node clips, and its bounds; None for other nodes."""
    if node.domain != "" or not node.inputs or node.inputs[0] is None or node.outputs[0].dtype not in (None, ir.DataType.FLOAT):
        return None
    source, positive = node.inputs[0], (0.0, np.inf)
    if node.op_type == "Relu" or (node.op_type == "LeakyRelu" and node.attributes.get_float("alpha", 0.01) == 0):
        return source, positive
    if node.op_type == "PRelu":
        slope = constant_of(node.inputs[1])
        return (source, positive) if slope is not None and not np.any(slope) else None
    if node.op_type == "Clip":
        low, high = _bound(node, 1, -np.inf), _bound(node, 2, np.inf)
        return None if low is None or high is None else (source, (low, high))
    return _extreme(node) if node.op_type in ("Max", "Min") and len(node.inputs) == 2 else None


def _extreme(node: ir.Node) -> tuple[ir.Value, Bounds] | None:
    """Return the tensor that a Max or Min with a constant clips, and its bounds."""
    for index in (0, 1):
        source, bound = node.inputs[index], _bound(node, 1 - index, None)
        if source is not None and bound is not None:
            return source, (bound, np.inf) if node.op_type == "Max" else (-np.inf, bound)
    return None


def _bound(node: ir.Node, index: int, default: float | None) -> float | None:
    """Return the number in a constant input; `default` where the input is absent, None where it is no number."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return default
    array = constant_of(value)
    if array is None or array.size != 1 or array.ndim > 1 or array.dtype.kind != "f":
        return None
    return float(array.ravel()[0])
