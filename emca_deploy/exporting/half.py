"""An fp32 model as a typed fp16 one: half-precision weights and activations, float32 where range or variance needs it.

Types are in the graph itself, as strongly typed TensorRT wants them: every operator's float inputs and outputs are of one type,
and a Cast stands wherever that changes. The network's input and output stay float32: whoever feeds images or reads logits needs
no other code, both are small, and the runtimes fuse the two Casts with what is beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from emca_deploy.errors import ModelError
from emca_deploy.exporting.half_layers import STATISTICS

__all__ = ["HalfGraph", "Rewriter", "WeightLosses", "check_half_fits", "to_half"]

SMALLEST_NORMAL = 2.0**-14
"""Below it fp16 loses digits; below 2**-25 it is zero. SRM's 1e-5 is one reason why its variance stays float32."""

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger"})


@dataclass
class WeightLosses:
    """What rounding to nearest even did to the weights that became fp16.

    Attributes:
        weights: how many there are.
        zeroed: by tensor, how many that were not zero are now.
        subnormal: how many are so small that they have fewer than 11 digits left.
    """

    weights: int = 0
    zeroed: dict[str, int] = field(default_factory=dict)
    subnormal: int = 0

    def add(self, name: str, before: "np.ndarray[Any, Any]", after: "np.ndarray[Any, Any]") -> None:
        """Count one tensor."""
        self.weights += before.size
        if zeroed := int(((before != 0) & (after == 0)).sum()):
            self.zeroed[name] = zeroed
        self.subnormal += int(((after != 0) & (np.abs(after) < SMALLEST_NORMAL)).sum())


@dataclass(frozen=True)
class HalfGraph:
    """What a rewrite came to.

    Attributes:
        half_nodes: how many nodes compute in fp16.
        float_nodes: names of those left in float32, by reason.
        casts: how many Casts were put in.
        losses: of the weights.
    """

    half_nodes: int
    float_nodes: dict[str, tuple[str, ...]]
    casts: int
    losses: WeightLosses

    def to_dict(self) -> dict[str, Any]:
        """Return what a manifest records."""
        return {
            "half_nodes": self.half_nodes,
            "float32_nodes": {reason: len(names) for reason, names in self.float_nodes.items()},
            "float32_layers": {reason: list(names) for reason, names in self.float_nodes.items() if reason not in STATISTICS},
            "casts": self.casts,
            "half_weights": self.losses.weights,
            "weights_rounded_to_zero": dict(self.losses.zeroed),
            "subnormal_weights": self.losses.subnormal,
        }


def to_half(model: ir.Model, keep: Mapping[ir.Node, str]) -> HalfGraph:
    """Rewrite an fp32 model in place.

    Args:
        model: float32 throughout, constants as initializers, nodes and tensors named.
        keep: nodes of it that stay in float32, each with the reason.

    Raises:
        ModelError: it is quantized, does not say its tensors' types, or nothing with weights is left to be fp16.
    """
    nodes = list(model.graph)
    _check(nodes, keep)
    rewriter = Rewriter(model.graph)
    halves = 0
    float_nodes: dict[str, list[str]] = {}
    for node in nodes:
        if not any(value.dtype == FLOAT for value in node.outputs):
            continue
        rewriter.retype(node, FLOAT if node in keep else HALF)
        halves += node not in keep
        if node in keep:
            float_nodes.setdefault(keep[node], []).append(str(node.name))
    rewriter.finish()
    reasons = {reason: tuple(names) for reason, names in float_nodes.items()}
    return HalfGraph(halves, reasons, rewriter.casts, rewriter.losses)


def _check(nodes: list[ir.Node], keep: Mapping[ir.Node, str]) -> None:
    if quantized := sorted({node.op_type for node in nodes} & QUANTIZED):
        raise ModelError(f"the model has {', '.join(quantized)} nodes", "convert the fp32 model it was made from")
    check_half_fits(nodes, keep)


def check_half_fits(nodes: list[ir.Node], keep: Mapping[ir.Node, str]) -> None:
    """Refuse a model whose types are not known, or of which nothing would be fp16.

    Raises:
        ModelError: it is one.
    """
    if untyped := next((value for node in nodes for value in node.outputs if value.dtype is None and value.uses()), None):
        raise ModelError(
            f"the model does not say which type '{untyped.name}' has", "run onnx.shape_inference.infer_shapes on it first"
        )
    if not any(node.op_type in {"Conv", "Gemm", "MatMul"} and node not in keep for node in nodes):
        reason = next((text for text in keep.values() if "reaches" in text), "it has no convolution")
        raise ModelError(f"nothing of this model fits fp16: {reason}", "use --precision fp32")


class Rewriter:
    """Gives nodes types. Walk the graph in its order, so that a tensor's first reader is where its Cast belongs.

    Args:
        graph: changed in place.

    Attributes:
        casts: how many were put in.
        losses: of the weights.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.casts = 0
        self.losses = WeightLosses()

    def retype(self, node: ir.Node, dtype: ir.DataType) -> None:
        """Give a node's float inputs and outputs one type."""
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in {FLOAT, HALF} and value.dtype != dtype:
                node.replace_input_with(index, self._as(value, dtype, node))
        for value in node.outputs:
            if value.dtype == FLOAT:
                value.type = ir.TensorType(dtype)

    def _as(self, value: ir.Value, dtype: ir.DataType, reader: ir.Node) -> ir.Value:
        key = (value, dtype)
        if key not in self._converted:
            if value.const_value is not None:
                self._converted[key] = self._rounded(value)
            else:
                cast = _cast(value, dtype)
                self._graph.insert_before(reader, cast)
                self.casts += 1
                self._converted[key] = cast.outputs[0]
        return self._converted[key]

    def _rounded(self, value: ir.Value) -> ir.Value:
        assert value.const_value is not None
        before = value.const_value.numpy()
        after = before.astype(np.float16)  # to nearest, ties to even
        self.losses.add(str(value.name), before, after)
        name = f"{value.name}.half"
        rounded = ir.Value(name=name, type=ir.TensorType(HALF), shape=value.shape, const_value=ir.tensor(after, name=name))
        self._graph.register_initializer(rounded)
        return rounded

    def finish(self) -> None:
        """Make the outputs float32 again, under their own names, and drop the weights nobody reads any more."""
        for index, value in enumerate(list(self._graph.outputs)):
            if value.dtype != HALF:
                continue
            name, value.name = value.name, f"{value.name}.half"
            cast = _cast(value, FLOAT)
            cast.name, cast.outputs[0].name = f"{name}.float", name
            self._graph.append(cast)
            self._graph.outputs[index] = cast.outputs[0]
            self.casts += 1
        for name, value in list(self._graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self._graph.initializers[name]
        for value in list(self._graph.initializers.values()):
            own = str(value.name).removesuffix(".half")
            if own != value.name and own not in self._graph.initializers:  # the fp32 original is gone: its name is free
                _rename(self._graph, value, own)


def _rename(graph: ir.Graph, value: ir.Value, name: str) -> None:
    graph.initializers.pop(str(value.name))
    value.name = name
    if value.const_value is not None:
        value.const_value.name = name
    graph.initializers[name] = value


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    name = f"{value.name}.{'half' if dtype == HALF else 'float'}"
    cast = ir.node("Cast", [value], attributes={"to": int(dtype)}, name=name)
    cast.outputs[0].name, cast.outputs[0].type, cast.outputs[0].shape = name, ir.TensorType(dtype), value.shape
    return cast
