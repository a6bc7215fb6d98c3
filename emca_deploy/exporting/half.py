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
from emca_deploy.results.codec import to_json

__all__ = ["HalfConversion", "HalfGraph", "Rewriter", "check_half_fits", "convert_to_half", "to_half"]

SMALLEST_NORMAL = 2.0**-14
"""Below it fp16 loses digits; below 2**-25 it is zero. SRM's 1e-5 is one reason why its variance stays float32."""

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger"})


@dataclass
class HalfGraph:
    """What a rewrite came to.

    Attributes:
        half_nodes: how many nodes compute in fp16.
        float32_nodes: how many are left in float32, by reason.
        float32_layers: their names, by reason; without those that the structure of attention asks for.
        casts: how many Casts were put in.
        half_weights: how many weights became fp16, rounded to nearest even.
        weights_rounded_to_zero: by tensor, how many that were not zero are now.
        subnormal_weights: how many are so small that they have fewer than 11 digits left.
    """

    half_nodes: int = 0
    float32_nodes: dict[str, int] = field(default_factory=dict)
    float32_layers: dict[str, list[str]] = field(default_factory=dict)
    casts: int = 0
    half_weights: int = 0
    weights_rounded_to_zero: dict[str, int] = field(default_factory=dict)
    subnormal_weights: int = 0


def to_half(model: ir.Model, keep: Mapping[ir.Node, str]) -> HalfGraph:
    """Rewrite in place a model that is float32 throughout, its constants initializers, its nodes and tensors named.

    The nodes in `keep` stay in float32, each with its reason.

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
        self._result = HalfGraph()

    def convert(self, node: ir.Node, keep: Mapping[ir.Node, str]) -> None:
        """Give a node fp16 inputs and outputs, or float32 ones where it is to keep them; one without floats stays as it is."""
        if not any(value.dtype == FLOAT for value in node.outputs):
            return
        self.retype(node, FLOAT if node in keep else HALF)
        if node not in keep:
            self._result.half_nodes += 1
            return
        reason = keep[node]
        self._result.float32_nodes[reason] = self._result.float32_nodes.get(reason, 0) + 1
        if reason not in STATISTICS:
            self._result.float32_layers.setdefault(reason, []).append(str(node.name))

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
                self._result.casts += 1
                self._converted[key] = cast.outputs[0]
        return self._converted[key]

    def _rounded(self, value: ir.Value) -> ir.Value:
        assert value.const_value is not None
        before = value.const_value.numpy()
        after = before.astype(np.float16)  # to nearest, ties to even
        self._result.half_weights += before.size
        if zeroed := int(((before != 0) & (after == 0)).sum()):
            self._result.weights_rounded_to_zero[str(value.name)] = zeroed
        self._result.subnormal_weights += int(((after != 0) & (np.abs(after) < SMALLEST_NORMAL)).sum())
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
            self._result.casts += 1
        common.RemoveUnusedNodesPass()(self._model)
        for value in list(self._graph.initializers.values()):
            own = str(value.name).removesuffix(".half")
            if own not in self._graph.initializers:  # the fp32 original is gone: its name is free
                value.name = own
        return self._result


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
        return {**to_json(self.graph), "tolerance": self.tolerance, "roundings": self.roundings}


def convert_to_half(model: ir.Model, images: Float32Array) -> HalfConversion:
    """Turn an fp32 model into a typed fp16 one, in place, and check it against itself as it was, on images (N, 3, S, S) float32.

    The model is a classifier with named nodes, its constants initializers, as `export_onnx` makes them.

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
