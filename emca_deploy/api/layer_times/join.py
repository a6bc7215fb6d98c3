"""A runtime's layers joined with the model's nodes: kind, multiply-adds, and speed relative to the roofline."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median

from emca_deploy.api.layer_times.graph import LayerGraph, Node
from emca_deploy.backends.layer_profiler import RuntimeLayer
from emca_deploy.results.layers import KINDS, Kind, Layer, Roofline

__all__ = ["SLOW_BELOW_PERCENT", "joined", "kind_of", "shares"]

SLOW_BELOW_PERCENT = 50.0
"""Speed relative to the roofline below which a layer is slow, if it has at least `_WORTH_A_LOOK_PERCENT` of the time."""

_WORTH_A_LOOK_PERCENT = 1.0

_CONVERSIONS = ("reorder", "quantize", "transpose", "cast", "convert", "reformat", "fakequantize", "permute", "shuffle")
_POOLINGS = ("pool", "reduce")
_ELEMENTWISE = (
    "add", "mul", "sub", "div", "relu", "sigmoid", "eltwise", "elementwise", "subgraph", "power", "clip", "pointwise", "swish",
    "tanh", "exp", "max", "min", "pow", "sqrt", "hswish", "softmax", "activation", "scale",
)  # fmt: skip
_CONVERSION_NODES = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast", "Transpose"})
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


def kind_of(type_: str, nodes: Sequence[Node]) -> Kind:
    """Return the kind of a layer, from the runtime's word for it and its nodes, which are empty if unknown.

    Conversions are recognized first. A layer with a node of an attention belongs to it, unless it is a convolution outside of the
    attention with a fused multiplication. Other layers are recognized by the runtime's word.
    """
    word = type_.lower()
    weighted = [node for node in nodes if node.macs]
    of_conversion = bool(nodes) and all(node.op_type in _CONVERSION_NODES for node in nodes)
    if of_conversion or (not weighted and any(part in word for part in _CONVERSIONS)):
        return "conversion"
    if any(node.attention for node in weighted or nodes) and all(node.attention for node in weighted):
        return "attention"
    if any(node.op_type.startswith("Conv") for node in weighted):
        return "convolution"
    return "other" if weighted else _kind_by_word(word)


def _kind_by_word(word: str) -> Kind:
    if "conv" in word or word == "correlation":
        return "convolution"
    if any(part in word for part in _POOLINGS):
        return "pooling"
    if "matmul" in word or "gemm" in word:
        return "other"
    return "elementwise" if any(part in word for part in _ELEMENTWISE) else "other"


def joined(found: Iterable[RuntimeLayer], graph: LayerGraph, roofline: Roofline | None) -> tuple[Layer, ...]:
    """Return the layers with their nodes and the roofline, in the order of execution."""
    rows = []
    for layer in found:
        if not layer.samples_ms:
            continue
        nodes = graph.of(layer.nodes, convolution="conv" in layer.type.lower())
        of_nodes = [node for _, node in nodes]
        kind = kind_of(layer.type, of_nodes)
        row = Layer(
            layer.name, layer.type, kind, layer.precision, median(layer.samples_ms), 0.0, tuple(name for name, _ in nodes)
        )
        rows.append(_held_against(row, of_nodes, roofline))
    total_ms = sum(row.median_ms for row in rows) or 1.0
    with_share = (replace(row, share_percent=100 * row.median_ms / total_ms) for row in rows)
    return tuple(replace(row, slow=_is_slow(row)) for row in with_share)


def _is_slow(layer: Layer) -> bool:
    near = layer.utilisation_percent
    return near is not None and near < SLOW_BELOW_PERCENT and layer.share_percent >= _WORTH_A_LOOK_PERCENT


def shares(layers: Sequence[Layer]) -> dict[str, float]:
    """Return the share of each kind in percent."""
    return {kind: sum(layer.share_percent for layer in layers if layer.kind == kind) for kind in KINDS}


def _held_against(layer: Layer, nodes: Sequence[Node], roofline: Roofline | None) -> Layer:
    weighted = [node for node in nodes if node.macs]
    macs = sum(node.macs for node in weighted)
    if not macs or layer.median_ms <= 0 or layer.kind == "conversion":
        return layer
    size = _BYTES.get(layer.precision, 4)
    moved = size * sum(node.input_elements + node.weight_elements + node.output_elements for node in weighted)
    gops, intensity = 2 * macs / layer.median_ms / 1e6, 2 * macs / moved
    layer = replace(layer, macs=macs, gops=gops, intensity=intensity)
    peak = roofline.gops.get(layer.precision) if roofline else None
    if roofline is None or peak is None:
        return layer
    by_memory = roofline.bandwidth_gb_s * intensity if roofline.bandwidth_gb_s else peak
    roof = min(peak, by_memory)
    bound = "memory" if by_memory < peak else "compute"
    return replace(layer, roof_gops=roof, utilisation_percent=100 * gops / roof, bound=bound)  # type: ignore[arg-type]
