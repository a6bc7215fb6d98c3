"""One form for layers, sums and flattening: paddings as numbers, linear layers as Gemm without factors, Add and Flatten."""

import numpy as np
import onnx_ir as ir

from emca_deploy.canonical.edit import constant_of, ints_of, replace_node, set_constant

__all__ = ["add_sums", "flatten_reshapes", "linear_layers", "merge_pads", "plain_linear_layers", "plain_paddings"]


def merge_pads(model: ir.Model) -> bool:
    """Merge each Pad of (H, W) with zeros into the convolutions that read it; return whether any was merged."""
    graph, changed = model.graph, False
    for node in list(graph):
        pads = _zero_pads(node)
        if pads is None or node.inputs[0] is None:
            continue
        readers = [use.node for use in node.outputs[0].uses()]
        if not readers or node.outputs[0].is_graph_output() or not all(_takes_pads(reader, node) for reader in readers):
            continue
        for reader in readers:
            own = ints_of(reader, "pads", [0] * 4)
            reader.attributes.add(ir.AttrInt64s("pads", [a + b for a, b in zip(own, pads, strict=True)]))
            reader.replace_input_with(0, node.inputs[0])
        graph.remove(node, safe=True)
        changed = True
    return changed


def _zero_pads(node: ir.Node) -> list[int] | None:
    """Return top, left, bottom and right of a Pad of a 4-D tensor with zeros; None for other nodes."""
    if node.op_type != "Pad" or node.attributes.get_string("mode", "constant") != "constant" or len(node.inputs) < 2:
        return None
    given = [*node.inputs[1:4], None, None][:3]
    pads, fill, axes = (constant_of(value) for value in given)
    computed = any(value is not None and constant_of(value) is None for value in given)
    chosen = [int(axis) % 4 for axis in axes.ravel()] if axes is not None else list(range(4))
    if pads is None or computed or np.any(fill) or pads.size != 2 * len(chosen):
        return None
    whole = [0] * 8
    for index, axis in enumerate(chosen):
        whole[axis], whole[axis + 4] = int(pads[index]), int(pads[index + len(chosen)])
    spatial = whole[2:4] + whole[6:8]
    return spatial if not any(whole[:2] + whole[4:6]) and min(spatial) >= 0 else None


def _takes_pads(reader: ir.Node, pad: ir.Node) -> bool:
    return (
        reader.op_type == "Conv"
        and reader.inputs[0] is pad.outputs[0]
        and reader.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and _weight_rank(reader) == 4
    )


def _weight_rank(layer: ir.Node) -> int:
    """Return the rank of a layer's weights; 0 where they are not constant."""
    weight = constant_of(layer.inputs[1]) if len(layer.inputs) > 1 else None
    return 0 if weight is None else weight.ndim


def linear_layers(model: ir.Model) -> bool:
    """Turn each MatMul of a 2-D tensor with constant weights into a Gemm; return whether there was any."""
    found = []
    for node in model.graph:
        source = node.inputs[0] if node.inputs else None
        flat = source is not None and source.shape is not None and len(source.shape) == 2
        if node.op_type == "MatMul" and flat and _weight_rank(node) == 2:
            found.append(node)
    for node in found:
        weight = constant_of(node.inputs[1])
        assert weight is not None
        gemm = ir.node("Gemm", [node.inputs[0], node.inputs[1]], {"transB": 1})
        set_constant(model.graph, gemm, 1, f"{node.name}.weight", np.ascontiguousarray(weight.T))
        replace_node(model.graph, node, gemm)
    return bool(found)


def plain_linear_layers(model: ir.Model) -> bool:
    """Fold alpha and beta into each Gemm's weights and store these as (outputs, inputs); return whether any changed."""
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
    """Write automatic paddings of convolutions and poolings as numbers; return whether there were any."""
    changed = False
    for node in model.graph:
        mode = node.attributes.get_string("auto_pad", "NOTSET")
        padded = node.op_type in ("Conv", "MaxPool", "AveragePool") and node.domain == "" and mode != "NOTSET"
        pads = _pads(node, str(mode)) if padded else None
        if pads is not None:
            node.attributes.pop("auto_pad")
            node.attributes.add(ir.AttrInt64s("pads", pads))
            changed = True
    return changed


def _pads(node: ir.Node, mode: str) -> list[int] | None:
    """Return a mode's paddings, all begins before all ends; None where the input's size is not known."""
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


def add_sums(model: ir.Model) -> bool:
    """Turn each Sum of two tensors into an Add; return whether there was any."""
    found = [node for node in model.graph if node.op_type == "Sum" and node.domain == "" and len(node.inputs) == 2]
    for node in found:
        replace_node(model.graph, node, ir.node("Add", list(node.inputs)))
    return bool(found)


def flatten_reshapes(model: ir.Model) -> bool:
    """Turn each Reshape or Squeeze to (N, all the rest) into Flatten; return whether there was any."""
    found = [node for node in model.graph if _flattens(node)]
    for node in found:
        replace_node(model.graph, node, ir.node("Flatten", [node.inputs[0]], {"axis": 1}))
    return bool(found)


def _flattens(node: ir.Node) -> bool:
    source, result = node.inputs[0] if node.inputs else None, node.outputs[0]
    if node.op_type not in ("Reshape", "Squeeze") or source is None or source.shape is None or result.shape is None:
        return False
    if len(source.shape) < 3 or len(result.shape) != 2:
        return False
    sides = [side for side in list(source.shape)[1:] if isinstance(side, int)]
    if len(sides) != len(source.shape) - 1:
        return False
    wanted = constant_of(node.inputs[1]) if node.op_type == "Reshape" and len(node.inputs) > 1 else None
    keeps_batch = source.shape[0] == result.shape[0] or (wanted is not None and wanted.size == 2 and int(wanted[0]) == 0)
    return bool(keeps_batch) and result.shape[1] == int(np.prod(sides))
