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
from onnx_ir.passes import common

from emca_deploy.arrays import Float32Array
from emca_deploy.errors import ModelError
from emca_deploy.exporting.half_layers import STATISTICS, attention_nodes, beyond_range
from emca_deploy.exporting.half_parity import check_half, peaks_and_logits, roundings
from emca_deploy.exporting.parity import Parity

__all__ = ["HalfConversion", "HalfGraph", "Rewriter", "WeightLosses", "check_half_fits", "convert_to_half", "to_half"]

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
    if quantized := sorted({node.op_type for node in nodes} & QUANTIZED):
        raise ModelError(f"the model has {', '.join(quantized)} nodes", "convert the fp32 model it was made from")
    check_half_fits(nodes, keep)
    rewriter = Rewriter(model)
    for node in nodes:
        rewriter.convert(node, keep)
    return rewriter.finish()


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
    """Gives a model's nodes types, in place. Go through them in order: a tensor's first reader is where its Cast belongs."""

    def __init__(self, model: ir.Model) -> None:
        self._model, self._graph = model, model.graph
        self._converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._halves = self._casts = 0
        self._float_nodes: dict[str, list[str]] = {}
        self._losses = WeightLosses()

    def convert(self, node: ir.Node, keep: Mapping[ir.Node, str]) -> None:
        """Give a node fp16 inputs and outputs, or float32 ones where it is to keep them; one without floats stays as it is."""
        if not any(value.dtype == FLOAT for value in node.outputs):
            return
        self.retype(node, FLOAT if node in keep else HALF)
        if node in keep:
            self._float_nodes.setdefault(keep[node], []).append(str(node.name))
        else:
            self._halves += 1

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
                self._casts += 1
                self._converted[key] = cast.outputs[0]
        return self._converted[key]

    def _rounded(self, value: ir.Value) -> ir.Value:
        assert value.const_value is not None
        before = value.const_value.numpy()
        after = before.astype(np.float16)  # to nearest, ties to even
        self._losses.add(str(value.name), before, after)
        name = f"{value.name}.half"
        rounded = ir.Value(name=name, type=ir.TensorType(HALF), shape=value.shape, const_value=ir.tensor(after, name=name))
        self._graph.register_initializer(rounded)
        return rounded

    def finish(self) -> HalfGraph:
        """Make the outputs float32 again, under their own names, and drop the weights nobody reads any more."""
        for index, value in enumerate(list(self._graph.outputs)):
            if value.dtype != HALF:
                continue
            name, value.name = value.name, f"{value.name}.half"
            cast = _cast(value, FLOAT)
            cast.name, cast.outputs[0].name = f"{name}.float", name
            self._graph.append(cast)
            self._graph.outputs[index] = cast.outputs[0]
            self._casts += 1
        common.RemoveUnusedNodesPass()(self._model)
        for value in list(self._graph.initializers.values()):
            own = str(value.name).removesuffix(".half")
            if own not in self._graph.initializers:  # the fp32 original is gone: its name is free
                value.name = own
        reasons = {reason: tuple(names) for reason, names in self._float_nodes.items()}
        return HalfGraph(self._halves, reasons, self._casts, self._losses)


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    name = f"{value.name}.{'half' if dtype == HALF else 'float'}"
    cast = ir.node("Cast", [value], attributes={"to": int(dtype)}, name=name)
    cast.outputs[0].name, cast.outputs[0].type, cast.outputs[0].shape = name, ir.TensorType(dtype), value.shape
    return cast


@dataclass(frozen=True)
class HalfConversion:
    """A conversion that passed.

    Attributes:
        graph: which nodes are fp16 and which are not, and what became of the weights.
        parity: with the fp32 model, on the given images.
        tolerance: the largest relative error that was allowed.
        roundings: to fp16, on the longest way through the network.
    """

    graph: HalfGraph
    parity: Parity
    tolerance: float
    roundings: int

    def to_dict(self) -> dict[str, Any]:
        """Return what a manifest records."""
        return {
            **self.graph.to_dict(),
            "tolerance": self.tolerance,
            "roundings": self.roundings,
        }


def convert_to_half(model: ir.Model, images: Float32Array) -> HalfConversion:
    """Turn an fp32 model into a typed fp16 one, in place, and check it against itself as it was.

    Args:
        model: what `export_onnx` returns, or another float32 classifier with named nodes and its constants as initializers.
        images: that its activations' range and its parity are measured on, (N, 3, S, S) float32.

    Raises:
        GateError: the fp16 logits differ by more than rounding explains.
        ModelError: the model is quantized or does not say its tensors' types, nothing of it fits fp16, or ONNX Runtime does not
            run it.
    """
    peaks, logits = peaks_and_logits(model, images)
    keep = beyond_range(model.graph, peaks) | attention_nodes(model.graph)
    graph = to_half(model, keep)
    parity, tolerance = check_half(model, images, logits)
    return HalfConversion(graph, parity, tolerance, roundings(model.graph))
