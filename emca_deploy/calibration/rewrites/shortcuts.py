"""Freeing shortcuts for OpenVINO's residual additions.

OpenVINO adds a shortcut inside the convolution that ends the residual branch, and the sum overwrites the shortcut. It does so
only when every other reader of the shortcut is on the way to the sum (`FuseConvolutionSumAndConvolutionSumActivation` of its CPU
plugin). EMCA's poolings of earlier blocks are not on that way; then the convolution returns float to a separate addition.
"""

from collections.abc import Iterator
from math import prod

import onnx_ir as ir

from emca_deploy.calibration.graphs.attention_path import is_global_pool
from emca_deploy.canonical.edit import insert_node, int64_constant, producer_of, sole_producer

__all__ = ["free_shortcuts"]

NARROW = 2
"""How many times smaller than the shortcut a tensor must be for an addition to cost less than a copy of the shortcut."""


def free_shortcuts(graph: ir.Graph) -> tuple[int, int]:
    """Free every shortcut with a reader that is not on the way to the sum, in a graph with its Q/DQ pairs, in place.

    In a bottleneck the branch waits: a zero computed from the shortcut's poolings is added to its narrow tensor. The addition is
    small, and the poolings run while their map is in the cache. Elsewhere the Add reads a copy.

    Returns:
        The numbers of shortcuts whose branch waits, and of copies.
    """
    waiting = copied = 0
    for node in list(graph):
        if node.op_type != "Add" or len(node.inputs) != 2:
            continue
        for index, value in enumerate(node.inputs):
            if value is None or not producer_of(value, "DequantizeLinear") or not _ends_convolution(node.inputs[1 - index]):
                continue
            way = _ancestors(node)
            strays = [use.node for use in value.uses() if use.node is not node and use.node not in way]
            if not strays:
                continue
            if _let_branch_wait(graph, value, strays, way):
                waiting += 1
            else:  # a max-pooling of one pixel copies INT8, and graph optimizers do not remove it
                name, window = f"{node.name}.copy", {"kernel_shape": [1, 1]}
                node.replace_input_with(index, insert_node(graph, node, "MaxPool", [value], name, value, attributes=window))
                copied += 1
    graph.sort()
    return waiting, copied


def _let_branch_wait(graph: ir.Graph, shortcut: ir.Value, strays: list[ir.Node], way: set[ir.Node]) -> bool:
    """Make the residual branch depend on every stray reader of the shortcut; return whether that was possible."""
    pool = _common_pool(shortcut, strays)
    layer = _narrow_layer(shortcut, [node for node in graph if node in way])
    narrow = layer.inputs[0] if layer is not None else None
    dequantize = producer_of(narrow)
    quantized = dequantize.inputs[0] if dequantize is not None else None
    if pool is None or layer is None or narrow is None or dequantize is None or quantized is None:
        return False
    name = f"{layer.name}.wait"
    # Means of a ReLU's results are never negative: one of them, negated and rectified, is an exact zero that no optimizer can
    # know. One number for all channels makes the cheapest addition.
    bounds = [int64_constant(graph, f"{name}.{part}", [number]) for part, number in (("start", 0), ("end", 1), ("axis", 1))]
    pixel = ir.Shape([narrow.shape[0] if narrow.shape is not None else None, 1, 1, 1])
    mean = insert_node(graph, layer, "Slice", [pool.outputs[0], *bounds], f"{name}.mean", narrow, shape=pixel)
    negated = insert_node(graph, layer, "Neg", [mean], f"{name}.neg", mean)
    zero = insert_node(graph, layer, "Relu", [negated], f"{name}.zero", mean)
    total = insert_node(graph, layer, "Add", [narrow, zero], name, narrow)
    parameters = dequantize.inputs[1:]
    integers = insert_node(
        graph, layer, "QuantizeLinear", [total, *parameters], f"{name}/quantize", quantized, shape=narrow.shape
    )
    again = insert_node(graph, layer, "DequantizeLinear", [integers, *parameters], f"{name}/dequantize", narrow)
    layer.replace_input_with(0, again)
    return True


def _common_pool(shortcut: ir.Value, strays: list[ir.Node]) -> ir.Node | None:
    """Return a global pooling that all strays lead to and whose results cannot be negative; None where there is none."""
    found = [node for node in _after(strays) if is_global_pool(node) and _is_never_negative(node.inputs[0], shortcut)]
    for pool in found:
        before = _ancestors(pool)
        if all(stray is pool or stray in before for stray in strays):
            return pool
    return None


def _is_never_negative(value: ir.Value | None, shortcut: ir.Value) -> bool:
    """Return whether a tensor is the shortcut in an unsigned type, or a square, as SRM's deviations."""
    producer = producer_of(value)
    if producer is None:
        return False
    if value is not shortcut:
        return producer.op_type == "Mul" and producer.inputs[0] is producer.inputs[1]
    zero = producer.inputs[2].const_value if len(producer.inputs) > 2 and producer.inputs[2] is not None else None
    return zero is not None and zero.dtype == ir.DataType.UINT8 and not zero.numpy().any()


def _after(strays: list[ir.Node]) -> Iterator[ir.Node]:
    """Yield the strays and the nodes after them, as far as poolings go."""
    seen = set(strays)
    waiting = list(strays)
    while waiting:
        node = waiting.pop(0)
        yield node
        if node.op_type in {"Concat", "Conv", "Gemm", "MatMul"}:
            continue  # nothing after the descriptor belongs to the shortcut alone
        for output in node.outputs:
            for use in output.uses():
                if use.node not in seen:
                    seen.add(use.node)
                    waiting.append(use.node)


def _narrow_layer(shortcut: ir.Value, way: list[ir.Node]) -> ir.Node | None:
    """Return the first convolution from the shortcut to the sum that is the only reader of a much smaller tensor."""
    downstream: set[ir.Value] = {shortcut}
    whole = _elements(shortcut)
    for node in way:
        if not any(value in downstream for value in node.inputs):
            continue
        downstream.update(node.outputs)
        value = node.inputs[0] if node.inputs else None
        if node.op_type != "Conv" or value is None or value is shortcut or not producer_of(value, "DequantizeLinear"):
            continue
        if whole and 0 < _elements(value) * NARROW <= whole and len(value.uses()) == 1:
            return node
    return None


def _elements(value: ir.Value) -> int:
    """Return how many numbers of a tensor belong to one image; 0 where its shape is unknown."""
    sides = list(value.shape)[1:] if value.shape is not None else []
    known = [side for side in sides if isinstance(side, int)]
    return prod(known) if known and len(known) == len(sides) else 0


def _ends_convolution(value: ir.Value | None) -> bool:
    """Return whether a value is a convolution's result, quantized or not, without other readers."""
    producer = sole_producer(value, "DequantizeLinear", "QuantizeLinear", "Conv")
    while producer is not None and producer.op_type != "Conv":
        producer = sole_producer(producer.inputs[0], "DequantizeLinear", "QuantizeLinear", "Conv")
    return producer is not None


def _ancestors(node: ir.Node) -> set[ir.Node]:
    """Return every node that `node` depends on."""
    found: set[ir.Node] = set()
    waiting = [node]
    while waiting:
        for producer in map(producer_of, waiting.pop().inputs):
            if producer is not None and producer not in found:
                found.add(producer)
                waiting.append(producer)
    return found
