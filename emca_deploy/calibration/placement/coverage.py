"""Coverage: the share of a network that a placement runs in INT8, and why the rest stays in float."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from emca_deploy.calibration.graphs.graph import WEIGHTED, has_weights
from emca_deploy.calibration.graphs.trunk import Trunk, find_trunk
from emca_deploy.calibration.graphs.weighted_layers import image_multiply_adds, multiplying_layers
from emca_deploy.calibration.placement.place import Placement, lacks_kernel, matching_nodes, place, rounds_logits, stays_float
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.canonical.edit import producer_of
from emca_deploy.errors import ModelError

__all__ = ["ENOUGH_PERCENT", "Coverage", "FloatLayer", "measure_coverage", "recipe_coverage"]

ENOUGH_PERCENT = 90.0
"""Percent of the multiply-adds: with less in INT8 a network is hardly faster than in float."""


@dataclass(frozen=True)
class FloatLayer:
    """A layer that stays in float, and its multiply-adds for one image."""

    name: str
    op: str
    reason: str
    macs: int


@dataclass(frozen=True)
class Coverage:
    """The layers that a placement runs in INT8.

    Attributes:
        layers: number of operators that multiply and add.
        int8_macs_percent: share of their multiply-adds in INT8; 0 for a network without any.
    """

    backend: str
    layers: int
    int8_layers: int
    int8_macs_percent: float
    float_layers: tuple[FloatLayer, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the form in `calibrate --json` and in manifests."""
        return {
            "layers": self.layers,
            "int8_layers": self.int8_layers,
            "int8_macs_percent": round(self.int8_macs_percent, 2),
            "float_layers": [{name: asdict(layer)[name] for name in ("name", "op", "reason")} for layer in self.float_layers],
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line that names the largest layers in float, where too little runs in INT8."""
        if self.int8_macs_percent >= ENOUGH_PERCENT:
            return ()
        share = f"{self.int8_macs_percent:.1f}% of the multiply-adds run in INT8 on {self.backend}"
        heaviest = sorted(self.float_layers, key=lambda layer: -layer.macs)
        reasons: dict[str, list[str]] = {}
        for layer in heaviest:
            reasons.setdefault(f"{layer.op} ({layer.reason})", []).append(layer.name)
        named = [
            f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
            for reason, names in list(reasons.items())[:3]
        ]
        return (f"only {share}; in float: {'; '.join(named)}",)


def measure_coverage(graph: ir.Graph, placement: Placement, kept: Iterable[ir.Node] = ()) -> Coverage:
    """Return a placement's coverage of its float graph; `kept` are the nodes that a user keeps in float."""
    trunk = find_trunk(graph)
    layers = {node: image_multiply_adds(node) for node in multiplying_layers(graph)}
    quantized, by_user = set(placement.weighted), set(kept)
    floating = []
    for node, macs in layers.items():
        if node not in quantized:
            own = None if node in by_user else _reason(node, placement, trunk)
            floating.append(FloatLayer(str(node.name), node.op_type, own or "--keep-float names it", macs))
    whole = sum(layers.values())
    share = 100 * sum(macs for node, macs in layers.items() if node in quantized) / whole if whole else 0.0
    count = sum(node in quantized for node in layers)
    return Coverage(placement.recipe.backend, len(layers), count, share, tuple(floating))


def recipe_coverage(model: Path, graph: ir.Graph, recipe: Recipe, keep_float: Sequence[str]) -> Coverage:
    """Return the coverage of a recipe's placement.

    Raises:
        ModelError: nothing of the model can run in INT8 even without patterns.
        InputError: a pattern matches no node.
    """
    coverage = measure_coverage(graph, place(graph, recipe, keep_float), matching_nodes(graph, keep_float))
    if not coverage.int8_layers and not keep_float:
        listed = "; ".join(f"{layer.op} '{layer.name}' {layer.reason}" for layer in coverage.float_layers[:3])
        found = listed or "it has no convolution and no matrix product"
        raise ModelError(f"{model}: nothing in it can run in INT8 on {recipe.backend}: {found}", "run the float model as it is")
    return coverage


def _reason(node: ir.Node, placement: Placement, trunk: Trunk) -> str:
    """Return why a layer that no pattern names stays in float."""
    backend = placement.recipe.backend
    if node in trunk.attention.nodes:
        stored = ", its weights stored as INT8" if node in placement.weight_only else ""
        reason = f"part of the attention, which stays in float{stored}"
    elif node.op_type not in WEIGHTED or lacks_kernel(node, placement.recipe):
        reason = f"{node.op_type} is not quantized for {backend}"
    elif not has_weights(node):
        reason = "multiplies two computed tensors"
    elif node.inputs[0] not in trunk.maps:
        producer = producer_of(node.inputs[0])
        maker = "the input" if producer is None else f"the result of {producer.op_type} '{producer.name}'"
        reason = f"reads {maker}, which is no map of the image"
    elif rounds_logits(node, placement.recipe, trunk):
        reason = f"is a last layer, whose results an INT8 convolution of {backend} would round"
    elif stays_float(node, placement.recipe.at(node), trunk):
        reason = "the placement leaves it in float, which was measured to be faster"
    else:
        reason = f"reads too few channels for an INT8 kernel of {backend} to be faster"
    return reason
