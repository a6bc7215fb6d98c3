"""The parts of a network that may stay in float: its layers with weights, and the blocks that residual Adds end."""

from collections.abc import Iterable
from dataclasses import dataclass
from glob import escape

import onnx_ir as ir

from emca_deploy.calibration.graphs.attention_path import find_attention
from emca_deploy.calibration.graphs.weighted_layers import image_multiply_adds
from emca_deploy.calibration.placement.place import Placement
from emca_deploy.results.sensitivity import UnitKind

__all__ = ["Unit", "find_units"]

SEPARATORS = "./"
"""Between the parts of a node's name: ours and TorchScript's exporter's."""


@dataclass(frozen=True)
class Unit:
    """A layer or a block.

    Attributes:
        name: of the layer's node, or what the names of the block's nodes begin with, without the separator.
        kind: see there.
        pattern: what `--keep-float` takes.
        layers: names of its quantized layers with weights.
        macs: their multiply-adds for one image.
    """

    name: str
    kind: UnitKind
    pattern: str
    layers: tuple[str, ...]
    macs: int


def find_units(graph: ir.Graph, placement: Placement) -> list[Unit]:
    """Return the layers with weights that a placement quantizes, in the order they run, then the blocks they form.

    A block is what shares its name's beginning with a residual Add, attention and shortcut included. Layers without a name are
    left out: no pattern could tell them apart.

    Args:
        graph: float.
        placement: the placement on that graph.
    """
    macs = {node.name: image_multiply_adds(node) for node in placement.weighted if node.name}
    layers = [Unit(name, "layer", escape(name), (name,), count) for name, count in macs.items()]
    blocks = []
    for prefix in _block_prefixes(graph):
        members = tuple(name for name in macs if name.startswith(prefix))
        if len(members) > 1:
            blocks.append(Unit(prefix[:-1], "block", escape(prefix) + "*", members, sum(macs[name] for name in members)))
    return layers + blocks


def _block_prefixes(graph: ir.Graph) -> Iterable[str]:
    """Yield what the names in each block begin with, its separator included, each once."""
    attention = find_attention(graph)
    prefixes: dict[str, None] = {}
    for node in graph:
        if node.op_type == "Add" and node not in attention.nodes and not any(_is_constant(value) for value in node.inputs):
            name = node.name or ""
            end = max(name.rfind(separator) for separator in SEPARATORS)
            if end > 0:
                prefixes[name[: end + 1]] = None
    return prefixes


def _is_constant(value: ir.Value | None) -> bool:
    return value is None or value.const_value is not None
