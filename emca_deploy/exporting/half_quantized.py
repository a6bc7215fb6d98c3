"""The float part of an INT8 model in fp16: what is not quantized, and what Q/DQ pairs read and return.

Strongly typed TensorRT takes a Q/DQ pair's float type for that of the operators around it: an INT8 convolution between fp16
Q/DQ returns fp16, and with it the residual adds, the gates and the poolings that follow.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.errors import ModelError
from emca_deploy.exporting.half import FLOAT, HALF, HalfGraph, Rewriter, check_half_fits

__all__ = ["LOWEST_OPSET", "SMALLEST_SCALE", "to_half_quantized"]

LOWEST_OPSET = 19
"""The first whose QuantizeLinear and DequantizeLinear have fp16 scales."""

SMALLEST_SCALE = 2.0**-17
"""The smallest scale that fp16 rounds by no more than 2**-8, half a step of INT8; its spacing there is 2**-24."""

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def to_half_quantized(model: ir.Model, keep: Mapping[ir.Node, str]) -> HalfGraph:
    """Rewrite an INT8 model whose float part is fp32, in place.

    Integers stay as they are, but for channels of weights whose scale is too small for fp16: they are rounded to a coarser one.
    Every scale is rounded to fp16, also where it stays a float32: both ends of a Q/DQ pair have the same. The graph has named
    nodes and tensors, and constants as initializers; `keep` are nodes whose float stays float32, none of them Q/DQ, each with the
    reason.

    Raises:
        ModelError: its opset has no fp16 Q/DQ, a scale does not fit fp16, it does not say its tensors' types, or nothing with
            weights is left to be fp16.
    """
    opset = model.graph.opset_imports.get("", 0)
    if opset < LOWEST_OPSET:
        raise ModelError(
            f"the model has opset {opset}, and fp16 Q/DQ nodes begin with {LOWEST_OPSET}",
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
    """Let a DequantizeLinear return what its readers compute in; where they differ there are two."""
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
    """Give every Q/DQ node a scale that fp16 has, still as float32.

    Raises:
        ModelError: an activation's scale is too small or too large for fp16.
    """
    for node in graph:
        if node.op_type not in {QUANTIZE, DEQUANTIZE}:
            continue
        stored, scale = node.inputs[0], node.inputs[1]
        if scale is None or scale.const_value is None or scale.dtype != FLOAT:
            continue
        before = np.asarray(scale.const_value.numpy(), np.float32)
        small = (before > 0) & (before < SMALLEST_SCALE)
        if small.any() and (stored is None or stored.const_value is None):
            raise ModelError(f"the scale of '{node.name}' is too small for fp16", "leave the float part fp32")
        if small.any():
            _coarsen(node, before, np.where(small, np.float32(SMALLEST_SCALE), before))
            before = np.where(small, np.float32(SMALLEST_SCALE), before)
        with np.errstate(over="ignore"):  # an infinity is refused below
            after = before.astype(np.float16).astype(np.float32)
        if not np.isfinite(after).all():
            raise ModelError(f"the scale of '{node.name}' is too large for fp16", "leave the float part fp32")
        scale.const_value = ir.tensor(after, name=scale.name)


def _coarsen(node: ir.Node, before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> None:
    """Round a layer's integers to larger scales."""
    stored = node.inputs[0]
    assert stored is not None
    assert stored.const_value is not None
    integers = stored.const_value.numpy()
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    shape = [-1 if index == axis % integers.ndim else 1 for index in range(integers.ndim)] if before.ndim else []
    ratio = (before / after).reshape(shape)
    stored.const_value = ir.tensor(np.rint(integers * ratio).astype(integers.dtype), name=stored.name)
