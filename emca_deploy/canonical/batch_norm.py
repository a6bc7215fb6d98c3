"""Folding BatchNormalization into the layer before it, or writing it as a Mul and an Add with constants.

y = gamma * (x - mean) / sqrt(var + epsilon) + beta, for each channel (ONNX, BatchNormalization-15, inference mode).
The rules of onnxscript drop the layer's name, which users type, and leave shared weights and MatMul unfolded.
"""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.arrays import Float64Array
from emca_deploy.canonical.edit import constant_of, insert_node, new_constant, only_reader, set_constant, take_over

__all__ = ["fold_batch_norm"]

DEFAULT_EPSILON = 1e-5


def fold_batch_norm(model: ir.Model) -> bool:
    """Remove every BatchNormalization with constant statistics; return whether any was removed."""
    changed = False
    for node in list(model.graph):
        affine = _affine(node)
        if affine is None:
            continue
        changed = True
        if not fold_affine(model.graph, node, *affine):
            _as_mul_add(model.graph, node, *affine)
    return changed


def _affine(node: ir.Node) -> tuple[Float64Array, Float64Array] | None:
    """Return scale and shift (C,) of a BatchNormalization; None for other nodes and in training mode."""
    if node.op_type != "BatchNormalization" or node.domain != "" or node.attributes.get_int("training_mode", 0) != 0:
        return None
    values = [constant_of(value) for value in node.inputs[1:5]]
    extra = [value for value in node.outputs[1:] if value.uses() or value.is_graph_output()]
    if len(values) != 4 or any(value is None for value in values) or extra:
        return None
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
    scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", DEFAULT_EPSILON))
    return scale, beta - mean * scale


def fold_affine(graph: ir.Graph, node: ir.Node, scale: Float64Array, shift: Float64Array) -> bool:
    """Fold a node, y = scale * x + shift with (C,) float64, into the layer that makes x; return whether that was possible.

    x is the node's first input, and nothing else may read it. The node is removed.
    """
    source = node.inputs[0]
    layer = source.producer() if source is not None else None
    if source is None or layer is None or only_reader(source) is not node:
        return False
    weight = constant_of(layer.inputs[1]) if len(layer.inputs) > 1 else None
    has_bias = len(layer.inputs) > 2 and layer.inputs[2] is not None
    bias = constant_of(layer.inputs[2]) if has_bias else None
    axis = _output_axis(layer, weight)
    if weight is None or axis is None or (has_bias and bias is None) or not np.all(np.isfinite(scale)):
        return False
    shape = [1] * weight.ndim
    shape[axis] = -1
    set_constant(graph, layer, 1, f"{layer.name}.weight", (weight * scale.reshape(shape)).astype(weight.dtype))
    beta = layer.attributes.get_float("beta", 1.0) if layer.op_type == "Gemm" else 1.0
    old = np.zeros(len(scale)) if bias is None else np.asarray(bias, np.float64).ravel() * beta
    set_constant(graph, layer, 2, f"{layer.name}.bias", (old * scale + shift).astype(weight.dtype))
    if layer.op_type == "Gemm" and beta != 1.0:
        layer.attributes.add(ir.AttrFloat32("beta", 1.0))
    take_over(graph, node.outputs[0], source)
    graph.remove(node, safe=True)
    return True


def _output_axis(layer: ir.Node, weight: "npt.NDArray[np.generic] | None") -> int | None:
    """Return the axis of output channels in a layer's weights; None where the layer cannot take scale and shift."""
    if weight is None or layer.domain != "":
        return None
    if layer.op_type == "Conv":
        return 0
    if layer.op_type == "ConvTranspose":
        return 1 if layer.attributes.get_int("group", 1) == 1 else None
    if layer.op_type == "Gemm":
        return 0 if layer.attributes.get_int("transB", 0) else 1
    return None


def _as_mul_add(graph: ir.Graph, node: ir.Node, scale: Float64Array, shift: Float64Array) -> None:
    """Put a Mul and an Add with constants (C, 1, 1) in the place of a node."""
    source, result = node.inputs[0], node.outputs[0]
    rank = len(source.shape) if source is not None and source.shape is not None else 4
    shape = (-1, *(1,) * (rank - 2))
    dtype = node.inputs[1].dtype if node.inputs[1] is not None else None
    kind = np.float16 if dtype == ir.DataType.FLOAT16 else np.float32
    factor = new_constant(graph, f"{node.name}.scale", scale.reshape(shape).astype(kind))
    term = new_constant(graph, f"{node.name}.shift", shift.reshape(shape).astype(kind))
    scaled = insert_node(graph, node, "Mul", [source, factor], f"{node.name}/mul", result)
    shifted = insert_node(graph, node, "Add", [scaled, term], f"{node.name}/add", result)
    scaled.name, shifted.name = f"{node.name}/scaled", f"{node.name}/shifted"
    take_over(graph, result, shifted)
    graph.remove(node, safe=True)
