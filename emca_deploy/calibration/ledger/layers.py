"""The layers of a finished model beside those of its reference: what is rounding of weights, and what is another network."""

from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.graph import WEIGHTED
from emca_deploy.calibration.graphs.weighted_layers import output_axis
from emca_deploy.calibration.ledger.pairs import weight_pair
from emca_deploy.canonical.edit import constant_of, set_constant

__all__ = ["Layer", "match_layers", "restore"]

_LARGEST_ROUNDING = 3.0
"""Root mean square of a channel's rounding, in units of an even distribution's over one step: the nearest integer gives 1, and
rounding for the smallest error of the output gave up to 2.1 on the networks of the tests."""

_HALF_STEP = 2.0**-10
"""Largest rounding of a number to float16, relative to it."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of both graphs.

    Attributes:
        name: Its name in the finished model.
        weight: Weights before rounding, float32 in the finished model's layout.
        bias: The reference's bias, (output channels,) float32; None without one.
        rounding: Power of the rounding relative to the weights'.
        foreign: Share of the weights' power that is not rounding: another fold, or other weights.
        shift: Power of the bias's difference from the reference's relative to the bias's own.
    """

    name: str
    weight: Float32Array
    bias: Float32Array | None
    rounding: float
    foreign: float
    shift: float


def match_layers(reference: ir.Graph, finished: ir.Graph) -> dict[str, Layer]:
    """Return the layers of a finished graph that the reference has too, by name; by order where both have as many."""
    ours, theirs = _layers(finished), _layers(reference)
    same = [(name, name) for name in ours if name in theirs]
    if 2 * len(same) < len(ours) and len(ours) == len(theirs):
        same = list(zip(ours, theirs, strict=True))
    found = {}
    for own, other in same:
        layer = _compared(own, ours[own], theirs[other])
        if layer is not None:
            found[own] = layer
    return found


def restore(graph: ir.Graph, layers: Mapping[str, Layer], weights: Set[str], biases: Set[str]) -> None:
    """Give layers of a finished graph, by name, their weights before rounding, and their reference's biases."""
    for node in graph:
        layer = layers.get(str(node.name))
        if layer is None or node.op_type not in WEIGHTED:
            continue
        if layer.name in weights:
            set_constant(graph, node, 1, f"{layer.name}/weight/float", layer.weight)
        if layer.name in biases and layer.bias is not None:
            set_constant(graph, node, 2, f"{layer.name}/bias/float", layer.bias)


def _layers(graph: ir.Graph) -> dict[str, ir.Node]:
    """Return the nodes that multiply by constants, stored as numbers or as integers with scales."""
    return {
        str(node.name): node
        for node in graph
        if node.op_type in WEIGHTED
        and len(node.inputs) > 1
        and (constant_of(node.inputs[1]) is not None or weight_pair(node.inputs[1]) is not None)
    }


def _compared(name: str, own: ir.Node, other: ir.Node) -> Layer | None:
    pair, wanted = weight_pair(own.inputs[1]), constant_of(other.inputs[1])
    if wanted is None:
        return None
    if pair is None:
        values = constant_of(own.inputs[1])
        assert values is not None
        values = np.asarray(values, np.float32)
        steps, originals = np.abs(values) * np.float32(_HALF_STEP) * np.float32(np.sqrt(12)), None
    else:
        values, steps, originals = pair
    wanted = np.asarray(wanted, np.float32)
    if wanted.shape != values.shape:
        if wanted.ndim != 2 or wanted.T.shape != values.shape:
            return None
        wanted = np.ascontiguousarray(wanted.T)
    weight = wanted if originals is None else originals
    foreign = _foreign(values, weight if originals is None else wanted, steps, own)
    if originals is None:
        weight = np.where(foreign, values, wanted)
    power = float(np.square(wanted, dtype=np.float64).sum()) or 1.0
    other_part = np.where(foreign, values - wanted, 0)
    bias, shift = _bias(own, other)
    return Layer(
        name,
        weight,
        bias,
        float(np.square(values - weight, dtype=np.float64).sum()) / power,
        float(np.square(other_part, dtype=np.float64).sum()) / power,
        shift,
    )


def _foreign(values: Float32Array, wanted: Float32Array, steps: Float32Array, node: ir.Node) -> npt.NDArray[np.bool_]:
    """Return, in the shape of the weights, which output channels differ by more than rounding and clipping can."""
    axis = output_axis(node)
    axes = tuple(index for index in range(values.ndim) if index != axis % values.ndim)
    difference = values - wanted
    largest = np.abs(values).max(axis=axes, keepdims=True)
    cut = (np.abs(wanted) > largest) & (np.sign(wanted) == np.sign(values)) & (np.abs(values) >= largest - steps)
    difference = np.where(cut, 0, difference)
    rounding = np.sqrt(np.square(difference).mean(axis=axes, keepdims=True))
    step = np.sqrt(np.square(steps).mean(axis=axes, keepdims=True) / 12)
    found: npt.NDArray[np.bool_] = np.broadcast_to(rounding > _LARGEST_ROUNDING * step + 1e-7 * largest, values.shape)
    return found


def _bias(own: ir.Node, other: ir.Node) -> tuple[Float32Array | None, float]:
    """Return the reference's bias, and the power of the finished model's difference from it, relative to it."""
    given = other.inputs[2] if len(other.inputs) > 2 else None
    wanted = constant_of(given)
    mine = own.inputs[2] if len(own.inputs) > 2 else None
    stored = constant_of(mine)
    pair = weight_pair(mine)
    values = np.asarray(stored, np.float32) if stored is not None else (pair[0] if pair is not None else None)
    if values is None or (wanted is None and given is not None):
        return None, 0.0
    before = np.zeros_like(values) if wanted is None else np.asarray(wanted, np.float32).reshape(values.shape)
    power = float(np.square(before, dtype=np.float64).sum()) or 1.0
    return before, float(np.square(values - before, dtype=np.float64).sum()) / power
