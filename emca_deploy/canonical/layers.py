"""One form for layers: paddings as numbers, linear layers without factors, their weights (outputs, inputs)."""

import numpy as np
import onnx_ir as ir

from emca_deploy.canonical.edit import constant_of, ints_of, set_constant

__all__ = ["plain_linear_layers", "plain_paddings"]


def plain_linear_layers(model: ir.Model) -> bool:
    """Multiply alpha and beta into each Gemm's weights and store these as (outputs, inputs); return whether there were any."""
    changed = False
    for node in model.graph:
        weight = constant_of(node.inputs[1]) if node.op_type == "Gemm" and node.domain == "" else None
        if weight is None or weight.ndim != 2 or node.attributes.get_int("transA", 0) != 0:
            continue
        alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
        transposed = bool(node.attributes.get_int("transB", 0))
        bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        if (alpha, beta, transposed) == (1.0, 1.0, True) or (beta != 1.0 and len(node.inputs) > 2 and bias is None):
            continue
        rows = np.ascontiguousarray(weight if transposed else weight.T)
        set_constant(model.graph, node, 1, f"{node.name}.weight", (rows * alpha).astype(weight.dtype))
        if bias is not None and beta != 1.0:
            set_constant(model.graph, node, 2, f"{node.name}.bias", (bias * beta).astype(bias.dtype))
        for name in ("alpha", "beta"):
            node.attributes.pop(name, None)
        node.attributes.add(ir.AttrInt64("transB", 1))
        changed = True
    return changed


def plain_paddings(model: ir.Model) -> bool:
    """Write the automatic padding of each convolution and pooling as numbers; return whether any had one."""
    changed = False
    for node in model.graph:
        mode = (
            node.attributes.get_string("auto_pad", "NOTSET") if node.op_type in ("Conv", "MaxPool", "AveragePool") else "NOTSET"
        )
        if mode == "NOTSET" or node.domain != "":
            continue
        pads = _pads(node, mode)
        if pads is None:
            continue
        node.attributes.pop("auto_pad")
        node.attributes.add(ir.AttrInt64s("pads", pads))
        changed = True
    return changed


def _pads(node: ir.Node, mode: str) -> list[int] | None:
    """Return the paddings that a mode comes to, all begins before all ends; None where the input's size is not known."""
    source = node.inputs[0]
    sides = list(source.shape)[2:] if source is not None and source.shape is not None else []
    if mode == "VALID":
        return [0] * (2 * len(sides)) if sides else None
    kernel = _kernel(node)
    if not sides or kernel is None or not all(isinstance(side, int) for side in sides):
        return None
    strides, dilations = (ints_of(node, name, [1] * len(sides)) for name in ("strides", "dilations"))
    begins, ends = [], []
    for side, size, stride, dilation in zip(sides, kernel, strides, dilations, strict=True):
        assert isinstance(side, int)
        reach = (size - 1) * dilation + 1
        total = max(0, (-(-side // stride) - 1) * stride + reach - side)
        more, less = total - total // 2, total // 2
        begins.append(more if mode == "SAME_LOWER" else less)
        ends.append(less if mode == "SAME_LOWER" else more)
    return begins + ends


def _kernel(node: ir.Node) -> list[int] | None:
    weight = constant_of(node.inputs[1]) if node.op_type == "Conv" else None
    return list(weight.shape[2:]) if weight is not None else ints_of(node, "kernel_shape", []) or None
