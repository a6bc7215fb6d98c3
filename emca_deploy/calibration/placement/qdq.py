"""Inserting the Q/DQ pairs of a placement into a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from emca_deploy.calibration.graphs.graph import dequantized
from emca_deploy.calibration.graphs.weighted_layers import multiplying_layers, output_axis, weight_of
from emca_deploy.calibration.placement.place import Edge, Placement
from emca_deploy.calibration.placement.quantize import (
    QuantizedWeight,
    QuantParams,
    activation_params,
    quantize_bias,
    quantize_weight,
    quantize_with,
    raise_scales_for_bias,
)
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.placement.weight_only import store_as_int8
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.canonical.edit import new_constant, producer_of
from emca_deploy.errors import InputError

__all__ = ["InsertionCount", "insert_behind", "insert_pair", "insert_qdq"]


PIXELS = QuantParams(1.0, 0, False)
"""Parameters of pixels: integers as they are."""


@dataclass(frozen=True)
class InsertionCount:
    """The number of tensors and operators that were quantized.

    Attributes:
        activations: number of Q/DQ pairs.
        weighted: number of operators that read INT8 and have INT8 weights.
        weighted_float: number of the other operators that multiply and add.
        replaced: new nodes, and the nodes that each replaced.
    """

    activations: int
    weighted: int
    weighted_float: int
    replaced: Mapping[ir.Node, ir.Node] = field(default_factory=dict)

    @property
    def weight_only(self) -> int:
        """Number of operators in float with weights stored as INT8: those that were replaced."""
        return len(set(self.replaced.values()))


def insert_qdq(
    model: ir.Model, placement: Placement, ranges: Mapping[str, TensorRange], weights: Mapping[str, QuantizedWeight] | None = None
) -> InsertionCount:
    """Insert a placement's Q/DQ pairs into its float model, of opset 13 or newer, in place.

    `weights` are layers' integers and scales by node name; other layers get the nearest integers.

    Raises:
        InputError: a tensor's range is missing, because the table is of another model.
    """
    graph = model.graph
    every = len(multiplying_layers(graph))
    params: dict[ir.Value, QuantParams] = {}
    for value, readers in placement.edges.items():
        source = value
        while source in placement.same:
            source = placement.same[source]
        name = str(source.name)
        if name not in ranges:
            raise InputError(f"the range table has no tensor '{name}'", "name another table with --table")
        symmetric = placement.recipe.symmetric or value in placement.symmetric
        cast = None if symmetric else _cast_of_pixels(value)
        params[value] = activation_params(ranges[name], symmetric=symmetric) if cast is None else PIXELS
        insert_pair(graph, value, readers, params[value], None if cast is None else cast.inputs[0])
        if cast is not None and not value.uses():
            graph.remove(cast, safe=True)
    originals = {node: value for value, readers in placement.edges.items() for node, index in readers if index == 0}
    for node in placement.weighted:
        _quantize_weights(graph, node, params[originals[node]], placement.recipe, (weights or {}).get(str(node.name)))
    replaced = {new: node for node in placement.weight_only for new in store_as_int8(graph, node)}
    for name, constant in list(graph.initializers.items()):
        if not constant.uses() and not constant.is_graph_output():
            del graph.initializers[name]
    weighted = len(placement.weighted)
    return InsertionCount(len(params), weighted, every - weighted, replaced)


def _cast_of_pixels(value: ir.Value) -> ir.Node | None:
    """Return the Cast that makes a tensor of uint8; None for other tensors."""
    cast = producer_of(value, "Cast")
    source = cast.inputs[0] if cast is not None else None
    return cast if source is not None and source.dtype == ir.DataType.UINT8 else None


def insert_pair(
    graph: ir.Graph, value: ir.Value, readers: Sequence[Edge], params: QuantParams, integers: ir.Value | None = None
) -> None:
    """Let some readers of a tensor read it through a Q/DQ pair, or through a DQ of the tensor's integers, if it has them."""
    integer = np.int8 if params.signed else np.uint8
    scale = new_constant(graph, f"{value.name}/scale", np.array(params.scale, np.float32))
    zero = new_constant(graph, f"{value.name}/zero_point", np.array(params.zero_point, integer))
    quantize = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}/quantize")
    stored = quantize.outputs[0] if integers is None else integers
    dequantize = ir.node("DequantizeLinear", [stored, scale, zero], name=f"{value.name}/dequantize")
    for new, kind in ((quantize, ir.DataType.from_numpy(np.dtype(integer))), (dequantize, ir.DataType.FLOAT)):
        result = new.outputs[0]
        result.name, result.shape, result.dtype = f"{new.name}d", value.shape, kind
    insert_behind(graph, value, [quantize, dequantize] if integers is None else [dequantize])
    for node, index in readers:
        node.replace_input_with(index, dequantize.outputs[0])


def insert_behind(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Insert nodes behind the one that computes a tensor, or first for an input."""
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(producer, nodes)


def _quantize_weights(
    graph: ir.Graph, node: ir.Node, reads: QuantParams, recipe: Recipe, rounded: QuantizedWeight | None
) -> None:
    weight = weight_of(node)
    axis = output_axis(node) % weight.ndim
    integers, scales = rounded or quantize_weight(weight, axis, recipe.largest_weight)
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    if recipe.integer_bias and bias_value is not None and bias_value.const_value is not None:
        bias = np.asarray(bias_value.const_value.numpy(), np.float32).ravel()
        wide = raise_scales_for_bias(scales, bias, reads.scale)
        if np.any(wide > scales):
            shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
            integers = np.where((wide > scales).reshape(shape), quantize_with(weight, wide, axis), integers)
            scales = wide
        bias_integers, bias_scales = quantize_bias(bias, scales, reads.scale)
        node.replace_input_with(2, dequantized(graph, node, f"{node.name}.bias", (bias_integers, bias_scales), 0))
    node.replace_input_with(1, dequantized(graph, node, f"{node.name}.weight", (integers, scales), axis))
