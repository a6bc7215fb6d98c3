"""Storing weights as INT8 and multiplying in float, for heavy layers of an attention.

SE's two layers are convolutions of one-pixel maps, with 2.4 million weights in a ResNet-50. TensorRT-RTX reads INT8 weights
within the kernel of a matrix product, but writes those of a convolution out as floats first, in a kernel of its own. Therefore
such a convolution becomes a product, with the same result but for the rounding of the weights.
"""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from emca_deploy.calibration.graphs.graph import dequantized, has_weights
from emca_deploy.calibration.graphs.weighted_layers import conv_geometry, weight_of, weight_rows
from emca_deploy.calibration.placement.quantize import quantize_weight
from emca_deploy.canonical.edit import int64_constant

__all__ = ["heavy_pixel_layers", "in_place_of", "store_as_int8"]


def heavy_pixel_layers(nodes: Sequence[ir.Node], fewest: int) -> list[ir.Node]:
    """Return the convolutions of one-pixel maps with at least `fewest` weights."""
    return [node for node in nodes if _is_pixel_layer(node, fewest)]


def _is_pixel_layer(node: ir.Node, fewest: int) -> bool:
    geometry = conv_geometry(node) if node.op_type == "Conv" and has_weights(node) else None
    plain = geometry is not None and geometry.kernel == (1, 1) and not any(geometry.pads)
    return plain and weight_of(node).size >= fewest and all(_is_pixel(value) for value in (node.inputs[0], node.outputs[0]))


def _is_pixel(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and len(value.shape) == 4 and list(value.shape)[2:] == [1, 1]


def store_as_int8(graph: ir.Graph, node: ir.Node) -> list[ir.Node]:
    """Write a convolution of one-pixel maps as a product with dequantized INT8 weights; return the nodes that run in float.

    The weights (output channels, input channels) are symmetric, with one scale for each output channel. The result keeps its
    name, and the product has the convolution's name.
    """
    weight, name, result = weight_rows(node), str(node.name), node.outputs[0]
    stored = dequantized(graph, node, f"{name}.weight", quantize_weight(weight, 0), 0)
    outputs, inputs = weight.shape
    rows = ir.node("Reshape", [node.inputs[0], int64_constant(graph, f"{name}/rows.shape", [-1, inputs])], name=f"{name}/rows")
    product = ir.node("Gemm", [rows.outputs[0], stored, *node.inputs[2:]], {"transB": 1}, name=name)
    shape = int64_constant(graph, f"{name}/pixel.shape", [-1, outputs, 1, 1])
    pixel = ir.node("Reshape", [product.outputs[0], shape], name=f"{name}/pixel")
    batch = result.shape[0] if result.shape is not None else None
    for new, sides in ((rows, [inputs]), (product, [outputs]), (pixel, [outputs, 1, 1])):
        value = new.outputs[0]
        value.name, value.shape, value.dtype = f"{new.name}/result", ir.Shape([batch, *sides]), ir.DataType.FLOAT
    graph.insert_before(node, [rows, product, pixel])
    ir.convenience.replace_all_uses_with(result, pixel.outputs[0])
    graph.remove(node, safe=True)
    pixel.outputs[0].name = result.name
    return [rows, product, pixel]


def in_place_of(keep: Mapping[ir.Node, str], replaced: Mapping[ir.Node, ir.Node]) -> dict[ir.Node, str]:
    """Return reasons by node, extended to the nodes that replaced them; `replaced` holds new nodes and their old ones."""
    return {**keep, **{node: keep[old] for node, old in replaced.items() if old in keep}}
