"""Writing activations and poolings of a graph with Q/DQ pairs in the form a backend computes fast; exact in real arithmetic."""

from math import isclose
from typing import Any

import numpy as np
import onnx_ir as ir

from emca_deploy.calibration.graphs.attention_path import is_global_pool
from emca_deploy.calibration.graphs.graph import dequantized
from emca_deploy.canonical.edit import insert_node, new_constant, producer_of

__all__ = ["average_pools_as_convolutions", "clip_hard_sigmoids", "hard_sigmoids_as_additions", "split_poolings"]

SWISH = (1 / 6, 0.5)
"""Alpha and beta with which x * HardSigmoid(x) is HardSwish."""


def hard_sigmoids_as_additions(graph: ir.Graph) -> int:
    """Write each HardSigmoid between a DequantizeLinear and a QuantizeLinear as one INT8 addition; return their number.

    min(max(alpha * x + beta, 0), 1) in integers of scale s is x + beta / alpha in integers of scale s / alpha, which saturate at
    the same ends. ONNX Runtime has an INT8 kernel only for the addition.
    """
    found = [node for node in graph if node.op_type == "HardSigmoid" and producer_of(node.inputs[0], "DequantizeLinear")]
    pairs = [(node, quantize) for node in found if (quantize := _only_quantize(node)) is not None]
    for node, quantize in pairs:
        _add_instead(graph, node, quantize)
    return len(pairs)


def _only_quantize(node: ir.Node) -> ir.Node | None:
    """Return the only reader of a HardSigmoid, a QuantizeLinear whose integers end at 0 and at 1 or below; None for others."""
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "QuantizeLinear" or node.outputs[0].is_graph_output():
        return None
    quantize = uses[0].node
    scale, zero = (value.const_value if value is not None else None for value in quantize.inputs[1:3])
    if scale is None or zero is None or zero.dtype != ir.DataType.UINT8 or zero.numpy().any() or min(_alpha_beta(node)) <= 0:
        return None
    readers = [use.node.op_type for use in quantize.outputs[0].uses()]
    return quantize if float(scale.numpy()) * 255 <= 1 + 1e-6 and readers == ["DequantizeLinear"] else None


def _alpha_beta(node: ir.Node) -> tuple[float, float]:
    return float(node.attributes.get_float("alpha", 0.2)), float(node.attributes.get_float("beta", 0.5))


def _add_instead(graph: ir.Graph, node: ir.Node, quantize: ir.Node) -> None:
    """Replace a HardSigmoid by an addition, and adapt the scale of the Q after it; the DQ keeps its scale."""
    alpha, beta = _alpha_beta(node)
    name = f"{node.name}.shift"
    stored = new_constant(graph, f"{name}/uint8", np.array(255, np.uint8))
    step = new_constant(graph, f"{name}/scale", np.array(beta / alpha / 255, np.float32))
    zero = new_constant(graph, f"{name}/zero_point", np.array(0, np.uint8))
    shifting = ir.node("DequantizeLinear", [stored, step, zero], name=f"{name}/dequantize")
    shifting.outputs[0].name, shifting.outputs[0].dtype, shifting.outputs[0].shape = name, ir.DataType.FLOAT, ir.Shape([])
    add = ir.node("Add", [node.inputs[0], shifting.outputs[0]], name=str(node.name))
    result = add.outputs[0]
    result.name, result.shape, result.type = f"{node.name}.shifted", node.outputs[0].shape, node.outputs[0].type
    scale = quantize.inputs[1]
    assert scale is not None  # `_only_quantize` looked at it
    assert scale.const_value is not None
    wide = new_constant(graph, f"{node.name}.shifted/scale", np.array(float(scale.const_value.numpy()) / alpha, np.float32))
    graph.insert_before(node, [shifting, add])
    quantize.replace_input_with(0, result)
    quantize.replace_input_with(1, wide)
    graph.remove(node, safe=True)


def average_pools_as_convolutions(graph: ir.Graph) -> int:
    """Write each INT8 average pooling as a depthwise convolution with equal weights; return their number.

    ONNX Runtime's INT8 average pooling takes five times as long as its depthwise convolution. Global poolings stay, and so do
    poolings whose padding does not count, which a convolution cannot express.
    """
    found = [node for node in graph if node.op_type == "AveragePool" and _is_plain_window(node) and _reads_and_returns_int8(node)]
    for node in found:
        value, kernel = node.inputs[0], list(node.attributes["kernel_shape"].as_ints())
        channels = value.shape[1] if value is not None and value.shape is not None else 0
        assert isinstance(channels, int)  # `_is_plain_window` looked at it
        weights = np.full((channels, 1, *kernel), 127, np.int8)
        scales = np.full(channels, 1 / (127 * kernel[0] * kernel[1]), np.float32)
        stored = dequantized(graph, node, f"{node.name}.weight", (weights, scales), 0)
        attributes: dict[str, Any] = {
            name: node.attributes[name].as_ints() for name in ("kernel_shape", "strides", "pads") if name in node.attributes
        }
        attributes["group"] = channels
        result = insert_node(graph, node, "Conv", [value, stored], str(node.name), node.outputs[0], attributes=attributes)
        result.name = f"{node.name}.mean"
        ir.convenience.replace_all_uses_with(node.outputs[0], result)
        graph.remove(node, safe=True)
    return len(found)


def _is_plain_window(node: ir.Node) -> bool:
    value, attributes = node.inputs[0], node.attributes
    if value is None or value.shape is None or len(value.shape) != 4 or not isinstance(value.shape[1], int):
        return False
    pads, dilations = attributes.get("pads"), attributes.get("dilations")
    padded = pads is not None and any(pads.as_ints())
    return (
        not is_global_pool(node)
        and (not padded or attributes.get_int("count_include_pad", 0) == 1)
        and attributes.get_int("ceil_mode", 0) == 0
        and attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        and (dilations is None or set(dilations.as_ints()) == {1})
    )


def _reads_and_returns_int8(node: ir.Node) -> bool:
    readers = {use.node.op_type for use in node.outputs[0].uses()}
    return producer_of(node.inputs[0], "DequantizeLinear") is not None and readers == {"QuantizeLinear"}


def clip_hard_sigmoids(graph: ir.Graph) -> int:
    """Write HardSwish as x * Clip(x + 3) / 6, and any other HardSigmoid as Mul, Add and Clip; return the number of HardSigmoids.

    OpenVINO fuses the first into the convolution before it, and the second into its neighbours; its HardSigmoid is a reference
    implementation that runs alone.
    """
    found = [node for node in graph if node.op_type == "HardSigmoid" and not node.outputs[0].is_graph_output()]
    for node in found:
        product = _swish_product(node)
        if product is None:
            _clip_instead(graph, node)
        else:
            _swish_instead(graph, node, product)
    return len(found)


def _swish_product(node: ir.Node) -> ir.Node | None:
    """Return the Mul that turns a HardSigmoid into HardSwish; None where there is none."""
    alpha, beta = _alpha_beta(node)
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or not (isclose(alpha, SWISH[0], rel_tol=1e-5) and isclose(beta, SWISH[1], rel_tol=1e-5)):
        return None
    product = uses[0].node
    return product if product.op_type == "Mul" and node.inputs[0] in product.inputs else None


def _clip_instead(graph: ir.Graph, node: ir.Node) -> None:
    alpha, beta = _alpha_beta(node)
    scaled = _append(graph, node, "Mul", [node.inputs[0], _number(graph, f"{node.name}.alpha", alpha)], "scaled")
    shifted = _append(graph, node, "Add", [scaled, _number(graph, f"{node.name}.beta", beta)], "shifted")
    ir.convenience.replace_all_uses_with(node.outputs[0], _clipped(graph, node, shifted, 1.0))
    graph.remove(node, safe=True)


def _swish_instead(graph: ir.Graph, node: ir.Node, product: ir.Node) -> None:
    shifted = _append(graph, node, "Add", [node.inputs[0], _number(graph, f"{node.name}.three", 3.0)], "shifted")
    whole = _append(graph, product, "Mul", [node.inputs[0], _clipped(graph, node, shifted, 6.0)], "times_six")
    divided = _append(graph, product, "Mul", [whole, _number(graph, f"{node.name}.sixth", 1 / 6)], "swish")
    ir.convenience.replace_all_uses_with(product.outputs[0], divided, replace_graph_outputs=True)
    graph.remove([product, node], safe=True)


def _clipped(graph: ir.Graph, node: ir.Node, value: ir.Value, most: float) -> ir.Value:
    bounds = [_number(graph, f"{node.name}.{end}", number) for end, number in (("least", 0.0), ("most", most))]
    return _append(graph, node, "Clip", [value, *bounds], "clipped")


def _number(graph: ir.Graph, name: str, value: float) -> ir.Value:
    return new_constant(graph, name, np.array(value, np.float32))


def _append(graph: ir.Graph, before: ir.Node, operator: str, inputs: list[ir.Value | None], part: str) -> ir.Value:
    """Insert a node before another one, named after it, and return its result, which has the other result's shape and type."""
    return insert_node(graph, before, operator, inputs, f"{before.name}.{part}", before.outputs[0])


def split_poolings(graph: ir.Graph) -> int:
    """Pool each quantized map along its rows, then along its columns; return the number of poolings that were split.

    OpenVINO's INT8 average pooling of rows takes half the time of its global mean, which converts every number to float before it
    adds it; the remaining columns are little work.
    """
    split = 0
    for node in list(graph):
        sides = _pooled_sides(node)
        if sides is None:
            continue
        (batch, channels, height, width), value, pooled = sides, node.inputs[0], node.outputs[0]
        shape, windows = ir.Shape([batch, channels, height, 1]), ({"kernel_shape": [1, width]}, {"kernel_shape": [height, 1]})
        rows = insert_node(graph, node, "AveragePool", [value], f"{node.name}.rows", pooled, shape=shape, attributes=windows[0])
        columns = insert_node(graph, node, "AveragePool", [rows], f"{node.name}.columns", pooled, attributes=windows[1])
        ir.convenience.replace_all_uses_with(pooled, columns)
        graph.remove(node, safe=True)
        split += 1
    return split


def _pooled_sides(node: ir.Node) -> tuple[int | ir.SymbolicDim, int, int, int] | None:
    """Return (N, C, H, W) of the quantized map that a global mean of four axes reads; None for other nodes."""
    if not is_global_pool(node) or node.op_type == "GlobalMaxPool":
        return None
    value, pooled = node.inputs[0], node.outputs[0]
    if value is None or not producer_of(value, "DequantizeLinear") or value.shape is None or pooled.shape is None:
        return None
    if len(value.shape) != 4 or list(pooled.shape)[2:] != [1, 1] or pooled.is_graph_output():
        return None
    channels, height, width = (side if isinstance(side, int) else 0 for side in list(value.shape)[1:])
    return (value.shape[0], channels, height, width) if min(height, width) > 1 else None
