"""Inner tensors of a model that is run as a whole: some values of each, as one more output in place of the logits."""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.graph import all_values
from emca_deploy.canonical.edit import int64_constant
from emca_deploy.canonical.marks import LOGITS

__all__ = ["WATCHED", "first_jump", "noise_shares", "split_values", "watch"]

WATCHED = "emca_deploy/watched"
"""Name of the output with the watched values, (N, values)."""

_VALUES = 2048
"""Values of a tensor that are watched for each image, spread over it."""

_CLEAN = 1e-6
"""Noise to signal below which a tensor counts as equal: float32 sums in another order give less."""


def watch(model: ir.Model, names: Sequence[str]) -> list[tuple[str, int]]:
    """Let a graph return values of the named tensors of each image in place of its outputs; return names and numbers of values.

    Tensors of unknown size are left out.
    """
    graph = model.graph
    by_name = {str(value.name): value for value in all_values(graph)}
    parts: list[ir.Value] = []
    sizes = []
    for name in names:
        value = by_name.get(name)
        count = 0 if value is None else _count(value)
        if value is None or not count:
            continue
        picked = np.unique(np.linspace(0, count - 1, min(count, _VALUES)).astype(np.int64))
        if value.dtype not in (None, ir.DataType.FLOAT):
            value = _append(graph, ir.node("Cast", [value], {"to": ir.DataType.FLOAT}), f"{name}/float32")
        flat = _append(graph, ir.node("Flatten", [value], {"axis": 1}), f"{name}/flat")
        indices = int64_constant(graph, f"{name}/picked", [int(index) for index in picked])
        parts.append(_append(graph, ir.node("Gather", [flat, indices], {"axis": 1}), f"{name}/values"))
        sizes.append((name, len(picked)))
    result = _append(graph, ir.node("Concat", parts, {"axis": 1}), WATCHED)
    result.shape = ir.Shape(["N", sum(size for _, size in sizes)])
    graph.outputs.clear()
    graph.outputs.append(result)
    graph.metadata_props[LOGITS] = WATCHED
    return sizes


def split_values(values: Float32Array, sizes: Sequence[tuple[str, int]]) -> dict[str, Float32Array]:
    """Return the (N, values) of each tensor by name."""
    ends = np.cumsum([size for _, size in sizes])
    return {name: values[:, end - size : end] for (name, size), end in zip(sizes, ends, strict=True)}


def noise_shares(reference: Mapping[str, Float32Array], values: Mapping[str, Float32Array]) -> dict[str, float]:
    """Return the power of each tensor's difference relative to its own, infinite where a value is not finite."""
    found = {}
    for name, wanted in reference.items():
        given = values[name].astype(np.float64)
        if not np.isfinite(given).all():
            found[name] = float("inf")
            continue
        signal = float(np.square(wanted, dtype=np.float64).sum())
        found[name] = float(np.square(given - wanted).sum()) / (signal or 1.0)
    return found


def first_jump(shares: Mapping[str, float]) -> tuple[str, float] | None:
    """Return the tensor, and its noise, where the noise grows most over all tensors before it; None where none has any.

    Only tensors with at least a fiftieth of the largest noise count: what a runtime rounds otherwise grows slowly.
    """
    if not shares or max(shares.values()) <= _CLEAN:
        return None
    largest = max(shares.values())
    least = max(_CLEAN, largest / 50) if np.isfinite(largest) else _CLEAN
    before, best, place = _CLEAN, 0.0, None
    for name, share in shares.items():
        growth = share / before
        if share >= least and growth > best:
            best, place = growth, name
        before = max(before, share)
        if not np.isfinite(share):
            break
    return None if place is None else (place, shares[place])


def _count(value: ir.Value) -> int:
    sides = list(value.shape)[1:] if value.shape is not None and len(value.shape) > 1 else []
    return prod(side for side in sides if isinstance(side, int)) if all(isinstance(side, int) for side in sides) and sides else 0


def _append(graph: ir.Graph, node: ir.Node, name: str) -> ir.Value:
    result = node.outputs[0]
    node.name = result.name = name
    result.dtype = ir.DataType.FLOAT
    graph.append(node)
    return result
