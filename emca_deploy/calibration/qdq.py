"""Graph surgery: put the Q/DQ pairs of a placement into a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.calibration.layers import output_axis, weight_of
from emca_deploy.calibration.observers import TensorRange
from emca_deploy.calibration.placement import Edge, Placement, Recipe
from emca_deploy.calibration.quantize import (
    QuantizedWeight,
    QuantParams,
    activation_params,
    quantize_bias,
    quantize_weight,
    quantize_with,
    raise_scales_for_bias,
)
from emca_deploy.errors import InputError

__all__ = ["InsertionCount", "insert_qdq"]


@dataclass(frozen=True)
class InsertionCount:
    """What was quantized: activations (Q/DQ pairs), operators with INT8 weights, and those left in float."""

    activations: int
    weighted: int
    weighted_float: int


def insert_qdq(
    model: ir.Model,
    placement: Placement,
    ranges: Mapping[str, TensorRange],
    weights: Mapping[str, QuantizedWeight] | None = None,
) -> InsertionCount:
    """Insert a placement's Q/DQ pairs into the float model it was made for, in place.

    Args:
        model: float, opset 13 or newer.
        placement: of the same model's graph.
        ranges: by tensor name.
        weights: integers and scales of layers, by node name; of others the nearest integers.

    Raises:
        InputError: a tensor's range is missing: the table is of another model.
    """
    graph = model.graph
    params: dict[ir.Value, QuantParams] = {}
    for value, readers in placement.edges.items():
        name = str(value.name)
        if name not in ranges:
            raise InputError(f"the range table has no tensor '{name}'", "delete the table and calibrate again")
        symmetric = placement.recipe.symmetric or value in placement.symmetric
        params[value] = activation_params(ranges[name], symmetric=symmetric)
        _quantize_activation(graph, value, readers, params[value])
    originals = {node: value for value, readers in placement.edges.items() for node, index in readers if index == 0}
    for node in placement.weighted:
        _quantize_weights(graph, node, params[originals[node]], placement.recipe, (weights or {}).get(str(node.name)))
    _drop_unused_initializers(graph)
    every = sum(1 for node in graph if node.op_type in {"Conv", "Gemm"})
    return InsertionCount(len(params), len(placement.weighted), every - len(placement.weighted))


def _constant(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def _quantize_activation(graph: ir.Graph, value: ir.Value, readers: list[Edge], params: QuantParams) -> None:
    integer = np.int8 if params.signed else np.uint8
    scale = _constant(graph, f"{value.name}/scale", np.array(params.scale, np.float32))
    zero = _constant(graph, f"{value.name}/zero_point", np.array(params.zero_point, integer))
    quantize = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}/quantize")
    quantized = quantize.outputs[0]
    quantized.name, quantized.shape, quantized.dtype = (
        f"{value.name}/quantized",
        value.shape,
        ir.DataType.from_numpy(np.dtype(integer)),
    )
    dequantize = ir.node("DequantizeLinear", [quantized, scale, zero], name=f"{value.name}/dequantize")
    result = dequantize.outputs[0]
    result.name, result.shape, result.dtype = f"{value.name}/dequantized", value.shape, ir.DataType.FLOAT
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantize, dequantize])
    else:
        graph.insert_after(producer, [quantize, dequantize])
    for node, index in readers:
        node.replace_input_with(index, result)


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
        node.replace_input_with(2, _dequantized(graph, node, f"{node.name}.bias", (bias_integers, bias_scales), 0))
    node.replace_input_with(1, _dequantized(graph, node, f"{node.name}.weight", (integers, scales), axis))


def _dequantized(
    graph: ir.Graph, node: ir.Node, name: str, tensor: tuple[npt.NDArray[Any], npt.NDArray[Any]], axis: int
) -> ir.Value:
    integers, scales = tensor
    stored = _constant(graph, f"{name}/int{8 * integers.dtype.itemsize}", integers)
    scale = _constant(graph, f"{name}/scale", scales)
    zero = _constant(graph, f"{name}/zero_point", np.zeros(scales.shape, integers.dtype))
    dequantize = ir.node("DequantizeLinear", [stored, scale, zero], {"axis": axis}, name=f"{name}/dequantize")
    result = dequantize.outputs[0]
    result.name, result.shape, result.dtype = f"{name}/dequantized", ir.Shape(integers.shape), ir.DataType.FLOAT
    graph.insert_before(node, dequantize)
    return result


def _drop_unused_initializers(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
