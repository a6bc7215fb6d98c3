"""Finds nodes that must not be fp16: channel statistics and gates by structure, others by the range of their tensors."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

__all__ = ["HEAVY_WEIGHTS", "STATISTICS", "attention_nodes", "beyond_range", "float_beside_int8"]

LARGEST_HALF = 65504.0

HEADROOM = 4.0
"""Factor by which other images may exceed activations that were measured on few images."""

HEAVY_WEIGHTS = 16384
"""Number of weights from which a layer of the attention is worth fp16 in an INT8 engine, as in se_resnet50's last two stages,
where they would be most of the engine. Smaller layers would gain less than the conversions around them cost."""

POOLED, VARIANCE, GATES = "pooled means", "variance", "attention between pooling and gate"
STATISTICS = frozenset({POOLED, VARIANCE, GATES})
"""Reasons of `attention_nodes`."""

POOLS = frozenset({"GlobalAveragePool", "ReduceMean", "ReduceL2"})
ELEMENTWISE = frozenset({"Sub", "Mul", "Pow"})
FLOAT = ir.DataType.FLOAT


def attention_nodes(graph: ir.Graph) -> dict[ir.Node, str]:
    """Return the nodes that statistics and gates need in float32, each with the reason.

    They are the global poolings, all nodes from there to attention's gates, and those that compute a variance. A mean sums a
    whole map (in fp16, 2048 + 1 is 2048). A variance squares, and adds an epsilon that fp16 barely has. A gate scales a whole
    channel. Except for the squares, all of their results are small.
    """
    squeezed: set[ir.Node] = set()  # computed from pooled statistics only
    for node in graph:
        inputs = [value for value in node.inputs if value is not None and value.producer() is not None]
        if node.op_type in POOLS or (inputs and all(value.producer() in squeezed for value in inputs)):
            squeezed.add(node)
    found = {node: POOLED for node in squeezed if node.op_type in POOLS}
    before = {node for node in squeezed if node.op_type in {"Sigmoid", "HardSigmoid"}}
    behind = set(before)
    for node in graph:
        if node in squeezed and any(value is not None and value.producer() in behind for value in node.inputs):
            behind.add(node)
    for node in reversed(list(graph)):
        if node in squeezed and any(reader in before for reader in _readers(node)):
            before.add(node)
    found |= {node: GATES for node in before | behind if node not in found}
    for node in reversed(list(graph)):
        reasons = {found.get(reader) for reader in _readers(node)}
        if node.op_type in ELEMENTWISE and node not in found and reasons and reasons <= {POOLED, VARIANCE}:
            found[node] = VARIANCE
    return found


def _readers(node: ir.Node) -> list[ir.Node]:
    return [use.node for value in node.outputs for use in value.uses()]


def beyond_range(graph: ir.Graph, peaks: Mapping[str, float]) -> dict[ir.Node, str]:
    """Return the nodes with weights, inputs or outputs that are too large for fp16, each with the tensor as the reason.

    `peaks` has the largest absolute value of each activation of the fp32 graph on some images, by name.
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
    """Return the nodes that stay float32 in an INT8 model whose float part becomes fp16, each with the reason.

    They are those of an fp16 model without the heavy layers of the attention and the Relu behind them: the pooled means that
    these read and the sigmoid that reads them stay float32, and the kernels add in float32. `graph` is the fp32 one, before
    quantization; `peaks` are those of `beyond_range`.
    """
    found = attention_nodes(graph)
    heavy = {node for node, reason in found.items() if reason == GATES and _is_heavy(node)}
    heavy |= {reader for node in heavy for reader in _readers(node) if reader.op_type == "Relu"}
    return beyond_range(graph, peaks) | {node: reason for node, reason in found.items() if node not in heavy}


def _is_heavy(node: ir.Node) -> bool:
    value = node.inputs[1] if node.op_type in {"Conv", "Gemm", "MatMul"} else None
    return value is not None and value.const_value is not None and value.const_value.size >= HEAVY_WEIGHTS
