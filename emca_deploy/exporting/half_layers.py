"""Which parts of a network must not be fp16: channel statistics and gates by structure, others by the range of their tensors."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

__all__ = ["HEAVY_WEIGHTS", "LARGEST_HALF", "STATISTICS", "attention_nodes", "beyond_range", "float_beside_int8"]

LARGEST_HALF = 65504.0

HEADROOM = 4.0
"""Activations are measured on few images; others may reach this many times as far."""

HEAVY_WEIGHTS = 16384
"""A layer of the attention with as many weights is worth fp16 in an INT8 engine, of which they would be the largest part: those
of se_resnet50's last two stages. Lighter ones would gain less than the conversions around them cost."""

POOLED, VARIANCE, GATES = "pooled means", "variance", "attention between pooling and gate"
STATISTICS = frozenset({POOLED, VARIANCE, GATES})
"""Reasons of `attention_nodes`."""

POOLS = frozenset({"GlobalAveragePool", "ReduceMean"})
ELEMENTWISE = frozenset({"Sub", "Mul", "Pow"})
FLOAT = ir.DataType.FLOAT


def attention_nodes(graph: ir.Graph) -> dict[ir.Node, str]:
    """Return the nodes that statistics and gates need in float32, each with the reason.

    They are the global poolings, all from there to attention's gates, and what makes a variance of a map. A mean sums a whole map
    (in fp16, 2048 + 1 is 2048); a variance squares, and adds an epsilon that fp16 hardly has; a gate scales a whole channel. But
    for the squares, all of their results are small.
    """
    squeezed: set[ir.Node] = set()  # computed from pooled statistics alone
    for node in graph:
        inputs = [value for value in node.inputs if value is not None and value.producer() is not None]
        if _is_pool(node) or (inputs and all(value.producer() in squeezed for value in inputs)):
            squeezed.add(node)
    found = {node: POOLED for node in squeezed if _is_pool(node)}
    gates = [node for node in squeezed if node.op_type in {"Sigmoid", "HardSigmoid"}]
    path = _reach(gates, squeezed, forward=True) | _reach(gates, squeezed, forward=False)
    found |= {node: GATES for node in path if node not in found}
    for node in reversed(list(graph)):
        readers = _readers(node)
        if (
            node.op_type in ELEMENTWISE
            and node not in found
            and readers
            and all(found.get(reader) in {POOLED, VARIANCE} for reader in readers)
        ):
            found[node] = VARIANCE
    return found


def _is_pool(node: ir.Node) -> bool:
    return node.op_type in POOLS


def _readers(node: ir.Node) -> list[ir.Node]:
    return [use.node for value in node.outputs for use in value.uses()]


def _reach(starts: Iterable[ir.Node], within: set[ir.Node], *, forward: bool) -> set[ir.Node]:
    reached: set[ir.Node] = set()
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        if node in reached or node not in within:
            continue
        reached.add(node)
        producers = [value.producer() for value in node.inputs if value is not None]
        waiting += _readers(node) if forward else [producer for producer in producers if producer is not None]
    return reached


def beyond_range(graph: ir.Graph, peaks: Mapping[str, float]) -> dict[ir.Node, str]:
    """Return the nodes whose weights, inputs or outputs are too large for fp16, each with the tensor that is.

    `peaks` has the largest absolute value of each activation of the fp32 graph, by name, on some images.
    """
    found: dict[ir.Node, str] = {}
    for node in graph:
        for value in (*node.inputs, *node.outputs):
            if value is None:
                continue
            if value.const_value is not None and value.dtype == FLOAT:
                peak, limit = float(np.abs(value.const_value.numpy()).max(initial=0.0)), LARGEST_HALF
            else:
                peak, limit = peaks.get(str(value.name), 0.0), LARGEST_HALF / HEADROOM
            if peak > limit:
                found[node] = f"'{value.name}' reaches {peak:.3g}"
    return found


def float_beside_int8(graph: ir.Graph, peaks: Mapping[str, float]) -> dict[ir.Node, str]:
    """Return the nodes that stay float32 where what INT8 leaves in float becomes fp16, each with the reason.

    They are those of an fp16 model but for the heavy layers of the attention, with the Relu behind them: the pooled means that
    they read and the sigmoid that reads them stay float32, and their sums are kept in float32 by the kernels. The graph is the
    fp32 one, before it is quantized; `peaks` are those of `beyond_range`.
    """
    found = attention_nodes(graph)
    heavy = {node for node, reason in found.items() if reason == GATES and _weights(node) >= HEAVY_WEIGHTS}
    heavy |= {reader for node in heavy for reader in _readers(node) if reader.op_type == "Relu"}
    return beyond_range(graph, peaks) | {node: reason for node, reason in found.items() if node not in heavy}


def _weights(node: ir.Node) -> int:
    value = node.inputs[1] if node.op_type in {"Conv", "Gemm", "MatMul"} else None
    return 0 if value is None or value.const_value is None else int(value.const_value.size)
