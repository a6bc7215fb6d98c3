"""Where the Q/DQ pairs of a recipe go in a graph."""

import sys
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import onnx_ir as ir

from emca_deploy.calibration.graphs.attention_path import AttentionPath, find_attention
from emca_deploy.calibration.graphs.graph import has_weights, only_feeds
from emca_deploy.calibration.graphs.trunk import PASS_THROUGH, PICKING, Trunk, find_trunk
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.placement.weight_only import heavy_pixel_layers
from emca_deploy.errors import InputError

__all__ = [
    "Edge",
    "Placement",
    "identity_operand",
    "matching_nodes",
    "place",
    "quantizable",
    "rounds_logits",
]

Edge = tuple[ir.Node, int]
"""A reader and which of its inputs."""


LOOKED_UP = frozenset({"Sigmoid", "HardSigmoid", "LeakyRelu"})
"""Functions that ONNX Runtime takes from a table of 256 numbers, or by one INT8 addition, in a fraction of the time of float."""


@dataclass
class Placement:
    """What is quantized.

    Attributes:
        edges: tensors, and which of their readers read the quantized one.
        weighted: operators that get INT8 weights and read INT8.
        symmetric: tensors that are symmetric beyond the recipe.
        weight_only: operators that get INT8 weights and read float.
        same: tensors that are quantized as another one is, of whose numbers they are some.
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
        """Let `nodes` read float after all; a tensor that nothing else reads quantized is not quantized."""
        for value, readers in list(self.edges.items()):
            self.edges[value] = [edge for edge in readers if edge[0] not in nodes]
            if not self.edges[value]:
                del self.edges[value]
        self.weighted = [node for node in self.weighted if node not in nodes]
        self.weight_only = [node for node in self.weight_only if node not in nodes]


def place(graph: ir.Graph, recipe: Recipe, keep_float: Sequence[str] = ()) -> Placement:
    """Decide where a recipe's Q/DQ pairs go in a float graph; nodes that match `keep_float`, as a shell matches, read float.

    Raises:
        InputError: a pattern matches no node.
    """
    kept = matching_nodes(graph, keep_float)
    attention = find_attention(graph)
    trunk = find_trunk(graph, attention)
    placement = Placement(recipe)
    for node in graph:
        if node not in attention.nodes:
            for index in _quantized_inputs(node, recipe, attention, trunk):
                placement.add(node, index)
            if has_weights(node) and node.inputs[0] in placement.edges:
                placement.weighted.append(node)
    if recipe.every_reader:
        for value in list(placement.edges):
            for use in value.uses():
                placement.add(use.node, use.idx)
    if recipe.outputs:
        _quantize_outputs(graph, placement, attention, trunk)
    _place_at_attention(graph, placement, attention, trunk)
    placement.keep_float(kept)
    return placement


def quantizable(graph: ir.Graph, recipes: Iterable[Recipe]) -> list[str]:
    """Return the names of the tensors that some recipe quantizes, in the order they are computed."""
    placed = {value for recipe in recipes for value in place(graph, recipe).edges}
    values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    return [str(value.name) for value in values if value in placed]


def _place_at_attention(graph: ir.Graph, placement: Placement, attention: AttentionPath, trunk: Trunk) -> None:
    """Decide what a recipe says of gates and of the attention's own layers."""
    recipe = placement.recipe
    if recipe.symmetric_gate:
        for gate, index in attention.gates.items():
            carried = gate.inputs[1 - index]
            # What an activation returns is hardly ever negative: without a zero point it would lose one bit of its eight.
            if carried is not None and carried not in trunk.origins:
                placement.symmetric.update((carried, *gate.outputs))
    if recipe.fewest_stored is not None:
        placement.weight_only = heavy_pixel_layers([node for node in graph if node in attention.nodes], recipe.fewest_stored)


def matching_nodes(graph: ir.Graph, patterns: Sequence[str]) -> set[ir.Node]:
    """Return the nodes whose names match a pattern, as a shell matches.

    Raises:
        InputError: a pattern matches none.
    """
    matched: set[ir.Node] = set()
    for pattern in patterns:
        found = {node for node in graph if fnmatchcase(node.name or "", pattern)}
        if not found:
            raise InputError(f"--keep-float {pattern}: matches no node", "node names look like stage2.block0.conv1")
        matched |= found
    return matched


def _quantized_inputs(node: ir.Node, recipe: Recipe, attention: AttentionPath, trunk: Trunk) -> list[int]:
    def carries(index: int) -> bool:
        return node.inputs[index] in trunk.values

    if has_weights(node):
        if node.inputs[0] not in trunk.maps or _input_channels(node) < recipe.fewest_channels:
            return []
        return [] if rounds_logits(node, recipe, trunk) else [0]
    if node in attention.gates:
        gate = attention.gates[node]
        if "Gate" not in recipe.readers:
            return []
        # The gate itself is worth INT8 only where the kernel needs both operands to be.
        return [1 - gate, gate] if recipe.outputs else [1 - gate]
    if node.op_type == "Add" and len(node.inputs) == 2 and carries(0) and carries(1):
        return _residual_inputs(node, recipe, attention)
    kind = "AttentionPool" if node in attention.pools else node.op_type
    return [0] if kind in recipe.readers and carries(0) else []


def rounds_logits(node: ir.Node, recipe: Recipe, trunk: Trunk) -> bool:
    """Return whether a layer makes the logits and a backend's INT8 kernel for it could return them rounded only."""
    return recipe.outputs and node.op_type == "Conv" and node.outputs[0] in trunk.head


def _input_channels(node: ir.Node) -> int:
    """Return how many channels one output of a layer reads."""
    weight = node.inputs[1]
    if node.op_type != "Conv" or weight is None or weight.const_value is None:
        return sys.maxsize
    return int(weight.const_value.shape.numpy()[1])


def _residual_inputs(node: ir.Node, recipe: Recipe, attention: AttentionPath) -> list[int]:
    if recipe.residual == "both":
        return [0, 1]
    return [] if recipe.residual == "none" else [identity_operand(node, attention)]


def identity_operand(node: ir.Node, attention: AttentionPath) -> int:
    """Return which operand of a residual Add is the shortcut's.

    The other one ends the residual branch: it comes from a gate, or straight from a convolution while the shortcut does not.
    Where both come from convolutions the shortcut is the one with fewer layers behind it; the second where these are as many.
    """
    producers = [value.producer() if value is not None else None for value in node.inputs]
    for index, producer in enumerate(producers):
        if producer is not None and producer in attention.gates:
            return 1 - index
    ends_branch = [producer is not None and producer.op_type == "Conv" for producer in producers]
    if ends_branch[0] != ends_branch[1]:
        return 0 if ends_branch[1] else 1
    depths = [_layers_before(value, {}) for value in node.inputs]
    return 0 if depths[0] < depths[1] else 1


def _layers_before(value: ir.Value | None, known: dict[ir.Node, int]) -> int:
    """Return the number of layers with weights on the longest way from the network's input to a tensor."""
    waiting = [value.producer()] if value is not None else []
    while waiting:
        node = waiting[-1]
        if node is None or node in known:
            waiting.pop()
            continue
        before = [producer for operand in node.inputs if operand is not None and (producer := operand.producer()) is not None]
        unknown = [producer for producer in before if producer not in known]
        if unknown:
            waiting += unknown
            continue
        known[node] = max((known[producer] for producer in before), default=0) + has_weights(node)
        waiting.pop()
    producer = value.producer() if value is not None else None
    return 0 if producer is None else known[producer]


def _quantize_outputs(graph: ir.Graph, placement: Placement, attention: AttentionPath, trunk: Trunk) -> None:
    """Quantize what quantized operators return, for every reader, and pass INT8 through reshapes.

    It stops where the attention path begins: the poolings return INT8, what reads them returns float.
    """
    fused, weighted = _fused(graph, trunk), frozenset(placement.weighted)
    for node in list(graph):
        if node in attention.nodes or not _carries(node, attention, trunk, weighted):
            continue
        if node not in fused and not _is_quantized(node, placement, trunk):
            continue
        for value in node.outputs:
            # Logits stay float: rounding them is the one error nothing after can average out.
            if value in trunk.head or only_feeds(value, "Relu") or only_feeds(value, "Clip"):
                continue
            # A product can return the float it adds up; a convolution cannot.
            if node.op_type in {"Gemm", "MatMul"} and all(trunk.is_pointwise(use.node) for use in value.uses()):
                continue
            for use in value.uses():
                placement.add(use.node, use.idx)
            if node.op_type in PICKING:
                source = node.inputs[0]
                assert source is not None  # it is quantized
                placement.same[value] = source


def _carries(node: ir.Node, attention: AttentionPath, trunk: Trunk, weighted: AbstractSet[ir.Node]) -> bool:
    if not node.inputs or node.inputs[0] is None:
        return False
    return node.outputs[0] in trunk.values or node in attention.pools or node in weighted


def _is_quantized(node: ir.Node, placement: Placement, trunk: Trunk) -> bool:
    """Return whether the backend will run a node in INT8, given what its inputs are by now."""
    first = node.inputs[0]
    assert first is not None  # it carries
    if trunk.is_pointwise(node) and node.op_type != "Mul":
        return node.op_type in LOOKED_UP and (node, 0) in placement.edges.get(first, ())
    if trunk.is_pointwise(node):  # SiLU's product, where both factors are INT8
        return all((node, index) in placement.edges.get(value, ()) for index, value in enumerate(node.inputs) if value)
    if node.op_type in PASS_THROUGH | PICKING and first in placement.edges and node.outputs[0] not in trunk.head:
        placement.add(node, 0)
        return True
    return any((node, index) in placement.edges.get(value, ()) for index, value in enumerate(node.inputs) if value)


def _fused(graph: ir.Graph, trunk: Trunk) -> set[ir.Node]:
    """Return the nodes that only cut off what the Q behind them cuts off, too, and stand right behind a layer or sum.

    They are fused into the operator before them.
    """
    found: set[ir.Node] = set()
    for node in graph:  # in the order they run: what comes before is known
        if _only_cuts(node):
            first = node.inputs[0] if node.inputs else None
            before = first.producer() if first is not None else None
            if before is None or before in found or not trunk.is_pointwise(before):
                found.add(node)
    return found


def _only_cuts(node: ir.Node) -> bool:
    """Return whether a node is a Relu, or a Clip of constant bounds around 0: integers end where it ends."""
    if node.op_type != "Clip":
        return node.op_type == "Relu"
    low, high = (value.const_value if value is not None else None for value in (*node.inputs, None, None)[1:3])
    return low is not None and high is not None and float(low.numpy()) <= 0 <= float(high.numpy())
