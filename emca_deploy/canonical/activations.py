"""One form for the activations that exporters write in several: HardSigmoid, HardSwish and SiLU.

A function is recognised by its values, not by its nodes: whatever computes x * min(max(x + 3, 0), 6) / 6 at every number is
HardSwish.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy.canonical.edit import constant_of, replace_node

__all__ = ["name_activations"]

Samples = npt.NDArray[np.float64]

GRID: Samples = np.linspace(-12.0, 12.0, 241)
SAME = 1e-5
"""Largest difference, relative to the largest value, of what counts as one function: exporters store 1/6 in float32."""

SWISH_ALPHA, SWISH_BETA = 1 / 6, 0.5


def name_activations(model: ir.Model) -> bool:
    """Write HardSigmoid as one node, HardSwish as x * HardSigmoid(x), and SiLU as x * Sigmoid(x); return whether one was not.

    The graph's shapes must be known no more than that it is valid; nodes that nothing reads any more are removed.
    """
    graph, changed = model.graph, False
    samples: dict[ir.Value, tuple[ir.Value, Samples]] = {}
    for node in list(graph):
        sampled = _sampled(node, samples)
        if sampled is None:
            continue
        origin, values = sampled
        samples[node.outputs[0]] = sampled
        replacement = _replacement(node, origin, values)
        if replacement is None:
            continue
        for helper in replacement[:-1]:
            helper.outputs[0].name = f"{node.outputs[0].name}/gate"
            helper.name = f"{node.name}.gate"
            helper.outputs[0].shape, helper.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
            graph.insert_before(node, helper)
        replace_node(graph, node, replacement[-1])
        samples[replacement[-1].outputs[0]] = sampled
        changed = True
    if changed:
        common.RemoveUnusedNodesPass()(model)
    return changed


def _replacement(node: ir.Node, origin: ir.Value, values: Samples) -> list[ir.Node] | None:
    """Return what takes a node's place, last the one with its result; None where nothing is to be replaced."""
    if node.op_type not in {"HardSigmoid", "Relu", "Clip", "Sigmoid"} | {"Identity"}:
        gate = _gate_of_product(values)
        if gate is not None:
            if _is_product_with(node, origin, gate[0]):
                return None
            computed = ir.node(gate[0], [origin], gate[1])
            return [computed, ir.node("Mul", [origin, computed.outputs[0]])]
    bounds = _hard_sigmoid(values) if node.op_type != "HardSigmoid" else None
    return None if bounds is None else [ir.node("HardSigmoid", [origin], {"alpha": bounds[0], "beta": bounds[1]})]


def _gate_of_product(values: Samples) -> tuple[str, dict[str, float]] | None:
    """Return the operator and attributes whose result, times x, these values are."""
    if _same(values, GRID * np.clip(SWISH_ALPHA * GRID + SWISH_BETA, 0, 1)):
        return "HardSigmoid", {"alpha": SWISH_ALPHA, "beta": SWISH_BETA}
    return ("Sigmoid", {}) if _same(values, GRID / (1 + np.exp(-GRID))) else None


def _is_product_with(node: ir.Node, origin: ir.Value, gate: str) -> bool:
    """Return whether a node is the product of a tensor and one node's function of it already."""
    if node.op_type != "Mul" or origin not in node.inputs:
        return False
    other = node.inputs[1] if node.inputs[0] is origin else node.inputs[0]
    producer = other.producer() if other is not None else None
    return producer is not None and producer.op_type == gate and producer.inputs[0] is origin


def _hard_sigmoid(values: Samples) -> tuple[float, float] | None:
    """Return alpha and beta of min(max(alpha * x + beta, 0), 1) where these are its values; None otherwise."""
    inside = (values > 1e-3) & (values < 1 - 1e-3)
    if inside.sum() < 3 or inside[0] or inside[-1]:
        return None
    alpha, beta = np.polyfit(GRID[inside], values[inside], 1)
    found = float(np.float32(alpha)), float(np.float32(beta))
    return found if alpha > 0 and _same(values, np.clip(found[0] * GRID + found[1], 0, 1)) else None


def _same(values: Samples, wanted: Samples) -> bool:
    return bool(np.abs(values - wanted).max() <= SAME * np.abs(wanted).max())


def _sampled(node: ir.Node, samples: dict[ir.Value, tuple[ir.Value, Samples]]) -> tuple[ir.Value, Samples] | None:
    """Return the tensor that a node computes a function of, and that function's values on `GRID`; None for any other node."""
    function = FUNCTIONS.get(node.op_type)
    if function is None or node.domain not in {"", "ai.onnx"} or len(node.outputs) != 1:
        return None
    origin: ir.Value | None = None
    operands: list[Samples | None] = []
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


def _clip(node: ir.Node, operands: list[Any]) -> Samples:
    low, high = (*operands, None, None)[1:3]
    return np.asarray(np.clip(operands[0], -np.inf if low is None else low, np.inf if high is None else high))


def _linear_clip(node: ir.Node, operands: list[Any]) -> Samples:
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
"""What these operators compute of their operands' values; None for one that is left out."""
