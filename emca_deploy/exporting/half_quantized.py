"""Converts the float part of an INT8 model to fp16: what is not quantized, and what Q/DQ pairs read and return.

In strongly typed TensorRT the operators around a Q/DQ pair have its float type: an INT8 convolution between fp16 Q/DQ returns
fp16, and the residual adds, gates and poolings that follow compute in fp16.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.errors import ModelError
from emca_deploy.exporting.half import FLOAT, HALF, HalfGraph, Rewriter, check_half_fits

__all__ = ["SMALLEST_SCALE", "to_half_quantized"]

LOWEST_OPSET = 19
"""First opset whose QuantizeLinear and DequantizeLinear have fp16 scales."""

SMALLEST_SCALE = 2.0**-17
"""Smallest scale that fp16 rounds by at most 2**-8, half a step of INT8; fp16's spacing there is 2**-24."""

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def to_half_quantized(model: ir.Model, keep: Mapping[ir.Node, str]) -> HalfGraph:
    """Convert the fp32 part of an INT8 model, in place.

    Integers stay as they are, except in channels of weights whose scale is too small for fp16: these are rounded to a coarser
    scale. Every scale is rounded to fp16, even where it stays float32, because both ends of a Q/DQ pair need the same. The graph
    has named nodes and tensors, and initializers for constants. `keep` has nodes that stay float32, none of them Q/DQ, each with
    the reason.

    Raises:
        ModelError: the opset has no fp16 Q/DQ, a scale does not fit fp16, the model lacks types of tensors, or no layer with
            weights would be fp16.
    """
    opset = model.graph.opset_imports.get("", 0)
    if opset < LOWEST_OPSET:
        raise ModelError(
            f"the model has opset {opset}, and fp16 Q/DQ nodes need {LOWEST_OPSET}",
            "export it with a newer --opset, or leave its float part fp32",
        )
    nodes = list(model.graph)
    check_half_fits(nodes, keep)
    _round_scales(model.graph)
    rewriter = Rewriter(model)
    for node in nodes:
        if node.op_type == QUANTIZE:
            value = node.inputs[0]
            assert value is not None
            rewriter.retype(node, value.dtype or FLOAT)
        elif node.op_type == DEQUANTIZE:
            _dequantize_for_readers(model.graph, rewriter, node, keep)
        else:
            rewriter.convert(node, keep)
    return rewriter.finish()


def _dequantize_for_readers(graph: ir.Graph, rewriter: Rewriter, node: ir.Node, keep: Mapping[ir.Node, str]) -> None:
    """Set a DequantizeLinear's type to that of its readers; where they differ, add a second one."""
    (value,) = node.outputs
    in_half = [use for use in value.uses() if use.node not in keep]
    if not in_half:
        return
    if len(in_half) == len(tuple(value.uses())) and not value.is_graph_output():
        rewriter.retype(node, HALF)
        return
    twin = ir.node(DEQUANTIZE, node.inputs, dict(node.attributes), name=f"{node.name}.half")
    (result,) = twin.outputs
    result.name, result.type, result.shape = f"{value.name}.half", ir.TensorType(FLOAT), value.shape
    graph.insert_after(node, twin)
    for use in in_half:
        use.node.replace_input_with(use.idx, result)
    rewriter.retype(twin, HALF)


def _round_scales(graph: ir.Graph) -> None:
    """Round the scale of every Q/DQ node to a number of fp16, still as float32."""
    for node in graph:
        if node.op_type not in {QUANTIZE, DEQUANTIZE}:
            continue
        stored, scale = node.inputs[0], node.inputs[1]
        if scale is None or scale.const_value is None or scale.dtype != FLOAT:
            continue
        before = np.asarray(scale.const_value.numpy(), np.float32)
        small = (before > 0) & (before < SMALLEST_SCALE)
        if small.any():
            if stored is None or stored.const_value is None:
                raise ModelError(f"the scale of '{node.name}' is too small for fp16", "leave the float part fp32")
            coarse = np.where(small, np.float32(SMALLEST_SCALE), before)
            stored.const_value = ir.tensor(_coarsened(node, stored.const_value.numpy(), before / coarse), name=stored.name)
            before = coarse
        with np.errstate(over="ignore"):  # an infinity is refused below
            after = before.astype(np.float16).astype(np.float32)
        if not np.isfinite(after).all():
            raise ModelError(f"the scale of '{node.name}' is too large for fp16", "leave the float part fp32")
        scale.const_value = ir.tensor(after, name=scale.name)


def _coarsened(node: ir.Node, integers: npt.NDArray[Any], ratio: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a layer's integers times the ratio of its scales, one number or one per channel."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    shape = [-1 if index == axis % integers.ndim else 1 for index in range(integers.ndim)] if ratio.ndim else []
    coarser: npt.NDArray[Any] = np.rint(integers * ratio.reshape(shape)).astype(integers.dtype)
    return coarser
