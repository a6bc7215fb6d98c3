"""One form for HardSigmoid, HardSwish and SiLU, which exporters write in several.

A function is recognized by its values, not by its nodes: whatever computes x * min(max(x + 3, 0), 6) / 6 is HardSwish.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy.arrays import Float64Array
from emca_deploy.canonical.edit import constant_of, insert_node, producer_of, replace_node

__all__ = ["name_activations"]

GRID: Float64Array = np.linspace(-12.0, 12.0, 241)
SAME = 1e-5
"""Largest difference between equal functions, relative to the largest value: exporters store 1/6 in float32."""

SWISH_ALPHA, SWISH_BETA = 1 / 6, 0.5


def name_activations(model: ir.Model) -> bool:
    """Write HardSigmoid as one node, HardSwish as x * HardSigmoid(x), and SiLU as x * Sigmoid(x); return whether any changed.

    Nodes that nothing reads any more are removed. No shapes are needed.
    """
    graph, changed = model.graph, False
    samples: dict[ir.Value, tuple[ir.Value, Float64Array]] = {}
    for node in list(graph):
        sampled = _sampled(node, samples)
        if sampled is None:
            continue
        origin, values = sampled
        samples[node.outputs[0]] = sampled
        factor, bounds = _factor(node, origin, values), _hard_sigmoid(node, values)
        if factor is not None:
            gate = insert_node(graph, node, factor[0], [origin], f"{node.name}.gate", node.outputs[0], attributes=factor[1])
            gate.name = f"{node.outputs[0].name}/gate"
            new = ir.node("Mul", [origin, gate])
        elif bounds is not None:
            new = ir.node("HardSigmoid", [origin], bounds)
        else:
            continue
        replace_node(graph, node, new)
        samples[new.outputs[0]] = sampled
        changed = True
    if changed:
        common.RemoveUnusedNodesPass()(model)
    return changed


def _factor(node: ir.Node, origin: ir.Value, values: Float64Array) -> tuple[str, dict[str, float]] | None:
    """Return the operator and attributes whose result, times x, is a node's; None where there is none or the node is that Mul."""
    if node.op_type in {"HardSigmoid", "Relu", "Clip", "Sigmoid", "Identity"}:
        return None
    if _same(values, GRID * np.clip(SWISH_ALPHA * GRID + SWISH_BETA, 0, 1)):
        found: tuple[str, dict[str, float]] = "HardSigmoid", {"alpha": SWISH_ALPHA, "beta": SWISH_BETA}
    elif _same(values, GRID / (1 + np.exp(-GRID))):
        found = "Sigmoid", {}
    else:
        return None
    if node.op_type != "Mul" or origin not in node.inputs:
        return found
    producer = producer_of(node.inputs[1] if node.inputs[0] is origin else node.inputs[0], found[0])
    return None if producer is not None and producer.inputs[0] is origin else found


def _hard_sigmoid(node: ir.Node, values: Float64Array) -> dict[str, float] | None:
    """Return alpha and beta where a node's values are min(max(alpha * x + beta, 0), 1) and it is no HardSigmoid; else None."""
    inside = (values > 1e-3) & (values < 1 - 1e-3)
    if node.op_type == "HardSigmoid" or inside.sum() < 3 or inside[0] or inside[-1]:
        return None
    alpha, beta = (float(np.float32(number)) for number in np.polyfit(GRID[inside], values[inside], 1))
    return {"alpha": alpha, "beta": beta} if alpha > 0 and _same(values, np.clip(alpha * GRID + beta, 0, 1)) else None


def _same(values: Float64Array, wanted: Float64Array) -> bool:
    return bool(np.abs(values - wanted).max() <= SAME * np.abs(wanted).max())


def _sampled(node: ir.Node, samples: dict[ir.Value, tuple[ir.Value, Float64Array]]) -> tuple[ir.Value, Float64Array] | None:
    """Return the one tensor that a node computes a function of, and the function's values on `GRID`; None for other nodes."""
    function = FUNCTIONS.get(node.op_type)
    if function is None or node.domain not in {"", "ai.onnx"} or len(node.outputs) != 1:
        return None
    origin: ir.Value | None = None
    operands: list[Float64Array | None] = []
    for value in node.inputs:
        constant = constant_of(value)
        if constant is not None and (constant.size != 1 or constant.dtype.kind != "f"):
            return None
        if value is None or constant is not None:
            operands.append(None if constant is None else np.full_like(GRID, float(constant.ravel()[0])))
            continue
        own, values = samples.get(value, (value, GRID))
        if origin is not None and own is not origin:
            return None
        origin = own
        operands.append(values)
    if origin is None:
        return None
    with np.errstate(all="ignore"):
        result = np.asarray(function(node, operands), np.float64)
    return (origin, result) if np.isfinite(result).all() else None


def _clip(node: ir.Node, operands: list[Any]) -> Float64Array:
    low, high = (*operands, None, None)[1:3]
    return np.asarray(np.clip(operands[0], -np.inf if low is None else low, np.inf if high is None else high))


def _linear_clip(node: ir.Node, operands: list[Any]) -> Float64Array:
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return np.asarray(np.clip(alpha * operands[0] + beta, 0, 1))


FUNCTIONS: dict[str, Callable[[ir.Node, list[Any]], Any]] = {
    "Add": lambda _, x: x[0] + x[1],
    "Sub": lambda _, x: x[0] - x[1],
    "Mul": lambda _, x: x[0] * x[1],
    "Div": lambda _, x: x[0] / x[1],
    "Neg": lambda _, x: -x[0],
    "Exp": lambda _, x: np.exp(x[0]),
    "Reciprocal": lambda _, x: 1 / x[0],
    "Relu": lambda _, x: np.maximum(x[0], 0),
    "Min": lambda _, x: np.minimum.reduce(x),
    "Max": lambda _, x: np.maximum.reduce(x),
    "Clip": _clip,
    "Sigmoid": lambda _, x: 1 / (1 + np.exp(-x[0])),
    "HardSigmoid": _linear_clip,
    "HardSwish": lambda _, x: x[0] * np.clip(SWISH_ALPHA * x[0] + SWISH_BETA, 0, 1),
    "Swish": lambda node, x: x[0] / (1 + np.exp(-node.attributes.get_float("alpha", 1.0) * x[0])),
    "Identity": lambda _, x: x[0],
}
"""The operators' results from a node and its operands' values; an operand that is left out is None."""
