"""Deciding where a recipe's Q/DQ pairs go in a graph."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import onnx_ir as ir

from emca_deploy.calibration.graphs.attention_path import AttentionPath
from emca_deploy.calibration.graphs.graph import all_values, has_weights, only_feeds
from emca_deploy.calibration.graphs.trunk import PASS_THROUGH, PICKING, Trunk, find_trunk
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.placement.weight_only import heavy_pixel_layers
from emca_deploy.canonical.edit import producer_of
from emca_deploy.errors import InputError

__all__ = [
    "Edge",
    "Placement",
    "identity_operand",
    "lacks_kernel",
    "matching_nodes",
    "place",
    "quantizable",
    "rounds_logits",
    "stays_float",
]

Edge = tuple[ir.Node, int]
"""A reader, and the index of its input."""

LOOKED_UP = frozenset({"Sigmoid", "HardSigmoid", "LeakyRelu"})
"""Functions that ONNX Runtime computes in INT8, by a table of 256 numbers or one addition, in a fraction of float's time."""


@dataclass
class Placement:
    """The tensors and operators that are quantized.

    Attributes:
        edges: quantized tensors, and the readers that read them quantized.
        weighted: operators that get INT8 weights and read INT8.
        symmetric: tensors that are symmetric although the recipe is not.
        weight_only: operators that get INT8 weights and read float.
        same: tensors that take another tensor's range, because they hold some of its numbers.
    """

    recipe: Recipe
    edges: dict[ir.Value, list[Edge]] = field(default_factory=dict)
    weighted: list[ir.Node] = field(default_factory=list)
    symmetric: set[ir.Value] = field(default_factory=set)
    weight_only: list[ir.Node] = field(default_factory=list)
    same: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def add(self, node: ir.Node, index: int) -> None:
        """Let input `index` of `node` read its tensor quantized."""
        value = node.inputs[index]
        if value is not None:
            readers = self.edges.setdefault(value, [])
            if (node, index) not in readers:
                readers.append((node, index))

    def keep_float(self, nodes: set[ir.Node]) -> None:
        """Let `nodes` read float again; a tensor without another quantized reader is not quantized."""
        for value, readers in list(self.edges.items()):
            self.edges[value] = [edge for edge in readers if edge[0] not in nodes]
            if not self.edges[value]:
                del self.edges[value]
        self.weighted = [node for node in self.weighted if node not in nodes]
        self.weight_only = [node for node in self.weight_only if node not in nodes]


def place(graph: ir.Graph, recipe: Recipe, keep_float: Sequence[str] = ()) -> Placement:
    """Decide where a recipe's Q/DQ pairs go in a float graph; nodes that match a shell pattern of `keep_float` read float.

    Raises:
        InputError: a pattern matches no node.
    """
    kept = matching_nodes(graph, keep_float)
    trunk = find_trunk(graph)
    placement = Placement(recipe)
    for node in graph:
        if node not in trunk.attention.nodes:
            for index in _quantized_inputs(node, recipe.at(node), trunk):
                placement.add(node, index)
            if has_weights(node) and node.inputs[0] in placement.edges:
                placement.weighted.append(node)
    for value in list(placement.edges):
        for use in value.uses():
            own = recipe.at(use.node)
            if own.every_reader and not ("AttentionPool" in own.floats and use.node in trunk.attention.pools):
                placement.add(use.node, use.idx)
    if recipe.outputs:
        _quantize_outputs(graph, placement, trunk)
    _place_at_attention(graph, placement, trunk)
    placement.keep_float(kept)
    _share_ranges(graph, placement)
    return placement


def quantizable(graph: ir.Graph, recipes: Iterable[Recipe]) -> list[str]:
    """Return the names of the tensors that some recipe quantizes, in the order they are computed."""
    placed = {value for recipe in recipes for value in place(graph, recipe).edges}
    return [str(value.name) for value in all_values(graph) if value in placed]


def _share_ranges(graph: ir.Graph, placement: Placement) -> None:
    """Give the input and the result of an operator that repeats or picks numbers one range, which spares rounding them twice.

    Backends need it to compute a max pooling in INT8. Clipping and rounding commute with a maximum, so its range is the result's
    where nothing else reads the input quantized.
    """
    for node in graph:
        kept = node.inputs[0] if _repeats(node) else None
        if kept in placement.edges and node.outputs[0] in placement.edges:
            assert kept is not None  # it is quantized
            if (kept in placement.symmetric) == (node.outputs[0] in placement.symmetric):
                placement.same.setdefault(node.outputs[0], kept)
        if node.op_type != "MaxPool" or len(node.outputs) != 1:
            continue
        source, result = node.inputs[0], node.outputs[0]
        if source not in placement.edges or result not in placement.edges:
            continue
        if (source in placement.symmetric) != (result in placement.symmetric):
            continue
        alone = all(reader is node for reader, _ in placement.edges[source])
        taker, giver = (source, result) if alone else (result, source)
        placement.same.setdefault(taker, giver)


def _repeats(node: ir.Node) -> bool:
    """Return whether a node returns numbers that it reads, some of them several times, and zeros."""
    if node.op_type == "Resize":
        return node.attributes.get_string("mode", "nearest") == "nearest"
    filling = node.inputs[2] if len(node.inputs) > 2 else None
    return node.op_type == "Pad" and (
        filling is None or (filling.const_value is not None and not filling.const_value.numpy().any())
    )


def _place_at_attention(graph: ir.Graph, placement: Placement, trunk: Trunk) -> None:
    """Apply a recipe's rules for gates and for the attention's own layers."""
    recipe, attention = placement.recipe, trunk.attention
    for gate, index in attention.gates.items():
        carried = gate.inputs[1 - index]
        # An activation's result is hardly ever negative, and would lose one of its eight bits without a zero point.
        if recipe.at(gate).symmetric_gate and carried is not None and carried not in trunk.origins:
            placement.symmetric.update((carried, *gate.outputs))
    if recipe.fewest_stored is not None:
        placement.weight_only = heavy_pixel_layers([node for node in graph if node in attention.nodes], recipe.fewest_stored)


def matching_nodes(graph: ir.Graph, patterns: Sequence[str]) -> set[ir.Node]:
    """Return the nodes whose names match a shell pattern.

    Raises:
        InputError: a pattern matches no node.
    """
    matched: set[ir.Node] = set()
    for pattern in patterns:
        found = {node for node in graph if fnmatchcase(node.name or "", pattern)}
        if not found:
            raise InputError(f"--keep-float {pattern}: matches no node", "node names look like stage2.block0.conv1")
        matched |= found
    return matched


def _quantized_inputs(node: ir.Node, recipe: Recipe, trunk: Trunk) -> list[int]:
    """Return the indices of the inputs that a recipe quantizes."""
    attention = trunk.attention
    if has_weights(node):
        if node.inputs[0] not in trunk.maps or _input_channels(node) < recipe.fewest_channels:
            return []
        return [] if rounds_logits(node, recipe, trunk) or stays_float(node, recipe, trunk) else [0]
    if node in attention.gates:
        gate = attention.gates[node]
        if "Gate" not in recipe.readers:
            return []
        # INT8 pays for the gate itself only where the kernel needs both operands in INT8.
        return [1 - gate, gate] if recipe.outputs else [1 - gate]
    if node.op_type == "Add" and len(node.inputs) == 2 and trunk.values.issuperset(node.inputs):
        operands = {"both": [0, 1], "none": []}.get(recipe.residual)
        return [identity_operand(node, attention)] if operands is None else operands
    kind = "AttentionPool" if node in attention.pools else node.op_type
    return [0] if kind in recipe.readers - recipe.floats and node.inputs[0] in trunk.values else []


def rounds_logits(node: ir.Node, recipe: Recipe, trunk: Trunk) -> bool:
    """Return whether a layer makes logits or other last results, and a backend's INT8 kernel for it would round them."""
    return recipe.outputs and node.op_type == "Conv" and node.outputs[0] in trunk.head


def stays_float(node: ir.Node, recipe: Recipe, trunk: Trunk) -> bool:
    """Return whether a layer is of a kind that a recipe leaves in float."""
    if "Classifier" in recipe.floats and node.outputs[0] in trunk.head:
        return True
    if lacks_kernel(node, recipe):
        return True
    source = node.inputs[0]
    return (
        "Branch" in recipe.floats
        and source is not None
        and any(_reads_shortcut(use.node, source, trunk.attention) for use in source.uses() if use.node is not node)
    )


def lacks_kernel(node: ir.Node, recipe: Recipe) -> bool:
    """Return whether a layer is a transposed convolution without an INT8 kernel: in groups, or on a backend that has none."""
    grouped = node.attributes.get_int("group", 1) != 1
    return node.op_type == "ConvTranspose" and ("ConvTranspose" in recipe.floats or grouped)


def _reads_shortcut(node: ir.Node, source: ir.Value, attention: AttentionPath) -> bool:
    """Return whether a node is the residual Add of a shortcut, or the shortcut's own convolution."""
    if node.op_type == "Conv":
        return any(use.node.op_type == "Add" for use in node.outputs[0].uses())
    return node.op_type == "Add" and len(node.inputs) == 2 and node.inputs[identity_operand(node, attention)] is source


def _input_channels(node: ir.Node) -> int:
    """Return how many channels one output of a layer reads."""
    weight = node.inputs[1]
    if node.op_type != "Conv" or weight is None or weight.const_value is None:
        return sys.maxsize
    return int(weight.const_value.shape.numpy()[1])


def identity_operand(node: ir.Node, attention: AttentionPath) -> int:
    """Return the index of the shortcut among a residual Add's operands.

    The other operand ends the residual branch: it comes from a gate, or directly from a convolution while the shortcut does not.
    Where both come from convolutions, the shortcut has fewer layers before it; with equally many, it is the second operand.
    """
    producers = [producer_of(value) for value in node.inputs]
    for index, producer in enumerate(producers):
        if producer in attention.gates:
            return 1 - index
    ends_branch = [producer is not None and producer.op_type == "Conv" for producer in producers]
    if ends_branch[0] != ends_branch[1]:
        return 0 if ends_branch[1] else 1
    depths = [_layers_up_to(producer) for producer in producers]
    return 0 if depths[0] < depths[1] else 1


def _layers_up_to(last: ir.Node | None) -> int:
    """Return the number of layers with weights on the longest way from the network's input through a node."""
    known: dict[ir.Node, int] = {}
    waiting = [last]
    while waiting:
        node = waiting[-1]
        if node is None or node in known:
            waiting.pop()
            continue
        before = [producer for operand in node.inputs if (producer := producer_of(operand)) is not None]
        unknown = [producer for producer in before if producer not in known]
        if unknown:
            waiting += unknown
            continue
        known[node] = max((known[producer] for producer in before), default=0) + has_weights(node)
        waiting.pop()
    return 0 if last is None else known[last]


def _quantize_outputs(graph: ir.Graph, placement: Placement, trunk: Trunk) -> None:
    """Quantize the results of quantized operators for every reader, and pass INT8 through reshapes.

    This stops where the attention path begins: the poolings return INT8, and their readers return float.
    """
    attention, fused, weighted = trunk.attention, _fused(graph, trunk), frozenset(placement.weighted)
    for node in list(graph):
        if node in attention.nodes or not node.inputs or node.inputs[0] is None:
            continue
        if node.outputs[0] not in trunk.values and node not in attention.pools and node not in weighted:
            continue
        if node not in fused and not _is_quantized(node, placement, trunk):
            continue
        for value in node.outputs:
            # Logits stay float: nothing after them can average out their rounding.
            if value in trunk.head or only_feeds(value, "Relu") or only_feeds(value, "Clip"):
                continue
            # A product can return its float sum; a convolution cannot.
            if node.op_type in {"Gemm", "MatMul"} and all(trunk.is_pointwise(use.node) for use in value.uses()):
                continue
            for use in value.uses():
                placement.add(use.node, use.idx)
            if node.op_type in PICKING:
                source = node.inputs[0]
                assert source is not None  # it is quantized
                placement.same[value] = source


def _is_quantized(node: ir.Node, placement: Placement, trunk: Trunk) -> bool:
    """Return whether the backend will run a node in INT8, given which of its inputs are quantized by now."""
    quantized = [(node, index) in placement.edges.get(value, ()) for index, value in enumerate(node.inputs) if value]
    if trunk.is_pointwise(node):  # SiLU's product, where both factors are INT8, or a table's function
        return all(quantized) if node.op_type == "Mul" else node.op_type in LOOKED_UP and quantized[0]
    if (
        placement.recipe.pass_through
        and node.op_type in PASS_THROUGH | PICKING
        and node.inputs[0] in placement.edges
        and node.outputs[0] not in trunk.head
    ):
        placement.add(node, 0)
        return True
    return any(quantized)


def _fused(graph: ir.Graph, trunk: Trunk) -> set[ir.Node]:
    """Return the nodes that only clip what the Q after them clips, too, and directly follow a layer or sum.

    Backends fuse them into the operator before them.
    """
    found: set[ir.Node] = set()
    for node in graph:  # in the order they run: what comes before is known
        if _only_cuts(node):
            before = producer_of(node.inputs[0])
            if before is None or before in found or not trunk.is_pointwise(before):
                found.add(node)
    return found


def _only_cuts(node: ir.Node) -> bool:
    """Return whether a node is a Relu, or a Clip with constant bounds around 0: its bounds are those of the integers."""
    if node.op_type != "Clip":
        return node.op_type == "Relu"
    low, high = (value.const_value if value is not None else None for value in (*node.inputs, None, None)[1:3])
    return low is not None and high is not None and float(low.numpy()) <= 0 <= float(high.numpy())
