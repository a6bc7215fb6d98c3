"""Residual additions of OpenVINO's: a shortcut that others read, too, made free to be overwritten.

OpenVINO adds a shortcut inside the convolution that ends the residual branch, in place: the sum overwrites the shortcut. It does
so only when every other reader of the shortcut is on the way to the sum (`FuseConvolutionSumAndConvolutionSumActivation` of its
CPU plugin). EMCA's poolings of earlier blocks are not on that way, and without help the convolution returns float to an addition
of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from emca_deploy.calibration.graphs.attention_path import is_global_pool
from emca_deploy.canonical.edit import int64_constant

__all__ = ["FreedShortcuts", "free_shortcuts"]

NARROW = 2
"""A tensor this many times smaller than the shortcut is cheaper to pass through an addition than the shortcut is to copy."""


@dataclass
class FreedShortcuts:
    """How many shortcuts were freed by making the branch wait for their other readers, and how many by a copy."""

    waiting: int = 0
    copied: int = 0


def free_shortcuts(graph: ir.Graph) -> FreedShortcuts:
    """Free every shortcut that something reads which is not on the way to the sum, in a graph with its Q/DQ pairs, in place.

    In a bottleneck the branch waits: to its narrow tensor is added what the shortcut's poolings return, made zero. It is a small
    addition, and the poolings run while the map they read is in the cache. Elsewhere the Add reads a copy.
    """
    freed = FreedShortcuts()
    for node in list(graph):
        if node.op_type != "Add" or len(node.inputs) != 2:
            continue
        for index, value in enumerate(node.inputs):
            if value is None or not _is_dequantized(value) or not _ends_convolution(node.inputs[1 - index]):
                continue
            way = _ancestors(node)
            strays = [use.node for use in value.uses() if use.node is not node and use.node not in way]
            if not strays:
                continue
            if _let_branch_wait(graph, value, strays, way):
                freed.waiting += 1
            else:
                _copy(graph, node, index, value)
                freed.copied += 1
    graph.sort()
    return freed


def _copy(graph: ir.Graph, add: ir.Node, index: int, value: ir.Value) -> None:
    """Let an Add read a copy. A max-pooling of one pixel copies INT8 as it is, and graph optimizers leave it in."""
    copy = ir.node("MaxPool", [value], {"kernel_shape": [1, 1]}, name=f"{add.name}.copy")
    copied = copy.outputs[0]
    copied.name, copied.shape, copied.type = copy.name, value.shape, value.type
    graph.insert_before(add, copy)
    add.replace_input_with(index, copied)


def _let_branch_wait(graph: ir.Graph, shortcut: ir.Value, strays: list[ir.Node], way: set[ir.Node]) -> bool:
    """Make the residual branch depend on every stray reader of the shortcut; returns whether it could be done."""
    pool = _common_pool(shortcut, strays)
    layer = _narrow_layer(shortcut, [node for node in graph if node in way])
    if pool is None or layer is None:
        return False
    narrow = layer.inputs[0]
    dequantize = narrow.producer() if narrow is not None else None
    quantized = dequantize.inputs[0] if dequantize is not None else None
    if narrow is None or dequantize is None or quantized is None:
        return False
    name = f"{layer.name}.wait"
    # Means of what a ReLU returned are never negative: one of them, negated and rectified, is an exact zero that no optimizer can
    # know. One number for all channels makes the cheapest addition.
    bounds = [int64_constant(graph, f"{name}.{part}", [number]) for part, number in (("start", 0), ("end", 1), ("axis", 1))]
    mean = ir.node("Slice", [pool.outputs[0], *bounds], name=f"{name}.mean")
    negated = ir.node("Neg", mean.outputs, name=f"{name}.neg")
    zero = ir.node("Relu", negated.outputs, name=f"{name}.zero")
    add = ir.node("Add", [narrow, zero.outputs[0]], name=name)
    parameters = dequantize.inputs[1:]
    quantize = ir.node("QuantizeLinear", [add.outputs[0], *parameters], name=f"{name}/quantize")
    again = ir.node("DequantizeLinear", [quantize.outputs[0], *parameters], name=f"{name}/dequantize")
    batch = narrow.shape[0] if narrow.shape is not None else None
    for node in (mean, negated, zero):
        _describe(node, ir.Shape([batch, 1, 1, 1]), narrow.type)
    _describe(add, narrow.shape, narrow.type)
    _describe(quantize, narrow.shape, quantized.type)
    _describe(again, narrow.shape, narrow.type)
    graph.insert_before(layer, [mean, negated, zero, add, quantize, again])
    layer.replace_input_with(0, again.outputs[0])
    return True


def _describe(node: ir.Node, shape: ir.Shape | None, kind: ir.TypeProtocol | None) -> None:
    result = node.outputs[0]
    result.name, result.shape, result.type = node.name, shape, kind


def _common_pool(shortcut: ir.Value, strays: list[ir.Node]) -> ir.Node | None:
    """Return a global pooling that all strays lead to, and whose results cannot be negative; None where there is none."""
    found = [node for node in _after(strays) if is_global_pool(node) and _is_never_negative(node.inputs[0], shortcut)]
    for pool in found:
        before = _ancestors(pool)
        if all(stray is pool or stray in before for stray in strays):
            return pool
    return None


def _is_never_negative(value: ir.Value | None, shortcut: ir.Value) -> bool:
    """Return whether a tensor is the shortcut in a type that has no negative numbers, or a square (SRM's deviations)."""
    producer = value.producer() if value is not None else None
    if producer is None:
        return False
    if value is not shortcut:
        return producer.op_type == "Mul" and producer.inputs[0] is producer.inputs[1]
    zero = producer.inputs[2].const_value if len(producer.inputs) > 2 and producer.inputs[2] is not None else None
    return zero is not None and zero.dtype == ir.DataType.UINT8 and not zero.numpy().any()


def _after(strays: list[ir.Node]) -> Iterator[ir.Node]:
    """Yield the strays and what reads their results, and so on, as far as poolings go."""
    seen = set(strays)
    waiting = list(strays)
    while waiting:
        node = waiting.pop(0)
        yield node
        if node.op_type in {"Concat", "Conv", "Gemm", "MatMul"}:
            continue  # past the descriptor: nothing there is the shortcut's own
        for output in node.outputs:
            for use in output.uses():
                if use.node not in seen:
                    seen.add(use.node)
                    waiting.append(use.node)


def _narrow_layer(shortcut: ir.Value, way: list[ir.Node]) -> ir.Node | None:
    """Return the first convolution between the shortcut and the sum that alone reads a tensor much smaller than the shortcut."""
    downstream: set[ir.Value] = {shortcut}
    whole = _elements(shortcut)
    for node in way:
        if not any(value in downstream for value in node.inputs):
            continue
        downstream.update(node.outputs)
        value = node.inputs[0] if node.inputs else None
        if node.op_type != "Conv" or value is None or value is shortcut or not _is_dequantized(value):
            continue
        if whole and 0 < _elements(value) * NARROW <= whole and len(value.uses()) == 1:
            return node
    return None


def _elements(value: ir.Value) -> int:
    """Return how many numbers one image has in a tensor, 0 where its shape is not known."""
    sides = list(value.shape)[1:] if value.shape is not None else []
    known = [side for side in sides if isinstance(side, int)]
    return prod(known) if known and len(known) == len(sides) else 0


def _is_dequantized(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _ends_convolution(value: ir.Value | None) -> bool:
    """Return whether a value is what a convolution returns, quantized or not, and nothing else reads it."""
    while value is not None and len(value.uses()) == 1 and (producer := value.producer()) is not None:
        if producer.op_type == "Conv":
            return True
        if producer.op_type not in {"DequantizeLinear", "QuantizeLinear"}:
            return False
        value = producer.inputs[0]
    return False


def _ancestors(node: ir.Node) -> set[ir.Node]:
    """Return every node on some way to `node`."""
    found: set[ir.Node] = set()
    waiting = [node]
    while waiting:
        for value in waiting.pop().inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer not in found:
                found.add(producer)
                waiting.append(producer)
    return found
