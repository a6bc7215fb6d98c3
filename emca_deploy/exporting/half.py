"""Converts an fp32 model to fp16 weights and activations, with float32 where range or variance needs it.

The graph itself has the types, as strongly typed TensorRT requires: all float inputs and outputs of an operator have one type,
and a Cast is wherever the type changes. The network's input and output stay float32: code that feeds images or reads logits
stays the same, both are small, and the runtimes fuse the two Casts with neighbouring operators.
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
from emca_deploy.exporting.half_parity import check_half, peaks_and_outputs, roundings
from emca_deploy.exporting.parity import Parity
from emca_deploy.results.codec import to_json

__all__ = ["HalfConversion", "HalfGraph", "Rewriter", "check_half_fits", "convert_to_half", "to_half"]

SMALLEST_NORMAL = 2.0**-14
"""Below this fp16 loses digits, and below 2**-25 it is zero. SRM's epsilon of 1e-5 is below: its variance stays float32."""

ONE_TYPED = frozenset({"Resize"})
"""Operators whose first input alone has the type of the result; a Resize has float32 scales."""

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger"})


@dataclass
class HalfGraph:
    """The nodes and weights of a model after a conversion to fp16.

    Attributes:
        half_nodes: Number of nodes that compute in fp16.
        float32_nodes: Number of nodes that stay in float32, by reason.
        float32_layers: Names of nodes that stay in float32, by reason, without statistics and gates of attention.
        casts: Number of Casts inserted.
        half_weights: Number of weights in fp16, rounded to nearest even.
        weights_rounded_to_zero: Number of weights that became zero, by tensor.
        subnormal_weights: Number of weights so small that they have fewer than 11 binary digits.
    """

    half_nodes: int = 0
    float32_nodes: dict[str, int] = field(default_factory=dict)
    float32_layers: dict[str, list[str]] = field(default_factory=dict)
    casts: int = 0
    half_weights: int = 0
    weights_rounded_to_zero: dict[str, int] = field(default_factory=dict)
    subnormal_weights: int = 0


def to_half(model: ir.Model, keep: Mapping[ir.Node, str]) -> HalfGraph:
    """Convert a float32 model in place; its constants are initializers, its nodes and tensors have names.

    The nodes in `keep` stay in float32, each for its reason.

    Raises:
        ModelError: the model is quantized, lacks types of tensors, or no layer with weights would be fp16.
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
    """Refuse a model that lacks types of tensors, or whose layers with weights all stay in float32.

    Raises:
        ModelError: the model cannot be converted.
    """
    if untyped := next((value for node in nodes for value in node.outputs if value.dtype is None and value.uses()), None):
        raise ModelError(f"the model has no type for '{untyped.name}'", "run onnx.shape_inference.infer_shapes on it first")
    if not any(node.op_type in {"Conv", "Gemm", "MatMul"} and node not in keep for node in nodes):
        reason = next((text for text in keep.values() if "reaches" in text), "it has no convolution")
        raise ModelError(f"no layer of this model fits fp16: {reason}", "use --precision fp32")


class Rewriter:
    """Sets the types of a model's nodes, in place and in order, because a tensor's Cast is in front of its first reader."""

    def __init__(self, model: ir.Model) -> None:
        self._model, self._graph = model, model.graph
        self._converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._result = HalfGraph()

    def convert(self, node: ir.Node, keep: Mapping[ir.Node, str]) -> None:
        """Set a node's float inputs and outputs to fp16, or to float32 where it is in `keep`."""
        if not any(value.dtype == FLOAT for value in node.outputs):
            if node in keep:
                self.retype(node, FLOAT)
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
        """Set a node's float inputs and outputs to one type."""
        for index, value in enumerate(node.inputs[:1] if node.op_type in ONE_TYPED else node.inputs):
            if value is not None and value.dtype in {FLOAT, HALF} and value.dtype != dtype:
                node.replace_input_with(index, self._as(value, dtype, node))
        for value in node.outputs:
            if value.dtype == FLOAT:
                value.type = ir.TensorType(dtype)

    def _as(self, value: ir.Value, dtype: ir.DataType, reader: ir.Node) -> ir.Value:
        key = (value, dtype)
        if key not in self._converted and value.const_value is not None:
            self._converted[key] = self._rounded(value)
        elif key not in self._converted:
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
        """Convert the outputs back to float32 under their own names, and remove weights that are no longer read."""
        for index, value in enumerate(list(self._graph.outputs)):
            if value.dtype != HALF:
                continue
            name, value.name = value.name, f"{value.name}.half"
            back = self._converted.get((value, FLOAT))  # a reader in float32 has it already
            if back is None:
                cast = _cast(value, FLOAT)
                self._graph.append(cast)
                self._result.casts += 1
                (back,) = cast.outputs
            maker = back.producer()
            assert maker is not None
            maker.name, back.name = f"{name}.float", name
            self._graph.outputs[index] = back
        common.RemoveUnusedNodesPass()(self._model)
        for value in list(self._graph.initializers.values()):
            own = str(value.name).removesuffix(".half")
            if own not in self._graph.initializers:  # the fp32 original is removed: its name is free
                value.name = own
        return self._result


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    name = f"{value.name}.{'half' if dtype == HALF else 'float'}"
    cast = ir.node("Cast", [value], attributes={"to": int(dtype)}, name=name)
    cast.outputs[0].name, cast.outputs[0].type, cast.outputs[0].shape = name, ir.TensorType(dtype), value.shape
    return cast


@dataclass(frozen=True)
class HalfConversion:
    """The result of a conversion.

    Attributes:
        graph: Nodes and weights after the conversion.
        parity: Parity with the fp32 model.
        tolerance: Largest relative error allowed.
        roundings: Number of roundings to fp16 on the longest path through the network.
    """

    graph: HalfGraph
    parity: Parity
    tolerance: float
    roundings: int

    def to_dict(self) -> dict[str, Any]:
        """Return the record for a manifest."""
        return {**to_json(self.graph), "tolerance": self.tolerance, "roundings": self.roundings}


def convert_to_half(model: ir.Model, images: Float32Array) -> HalfConversion:
    """Convert an fp32 model to fp16 in place, and compare the two on images (N, 3, S, S) float32.

    The model is a classifier with named nodes and initializers for constants, as `export_onnx` returns it.

    Raises:
        GateError: the fp16 logits differ by more than rounding explains.
        ModelError: the model is quantized, lacks types of tensors, no layer fits fp16, or ONNX Runtime does not run it.
    """
    peaks, outputs = peaks_and_outputs(model, images)
    keep = beyond_range(model.graph, peaks) | attention_nodes(model.graph)
    graph = to_half(model, keep)
    parity, tolerance = check_half(model, images, next(iter(outputs.values())))
    return HalfConversion(graph, parity, tolerance, roundings(model.graph))
