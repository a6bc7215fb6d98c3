"""Stored integers of a quantized graph, and what a DequantizeLinear makes of them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.calibration.graphs.graph import constant

__all__ = ["dequantized"]


def dequantized(
    graph: ir.Graph, node: ir.Node, name: str, tensor: tuple[npt.NDArray[Any], npt.NDArray[Any]], axis: int
) -> ir.Value:
    """Store integers, and return them as the float32 they stand for, computed before a node.

    Args:
        graph: gets integers, scales, zero points of 0 and the DequantizeLinear.
        node: that will read it.
        name: of the tensor; names of what is added begin with it.
        tensor: int8 or int32 of any shape, and float32 scales, one for each index of `axis`.
        axis: of the scales.
    """
    integers, scales = tensor
    stored = constant(graph, f"{name}/int{8 * integers.dtype.itemsize}", integers)
    scale = constant(graph, f"{name}/scale", scales)
    zero = constant(graph, f"{name}/zero_point", np.zeros(scales.shape, integers.dtype))
    dequantize = ir.node("DequantizeLinear", [stored, scale, zero], {"axis": axis}, name=f"{name}/dequantize")
    result = dequantize.outputs[0]
    result.name, result.shape, result.dtype = f"{name}/dequantized", ir.Shape(integers.shape), ir.DataType.FLOAT
    graph.insert_before(node, dequantize)
    return result
