"""One form for what exporters write in several: padding, linear layers, flattening."""

import numpy as np
import onnx_ir as ir

from emca_deploy.canonical.edit import constant_of, ints_of, replace_node, set_constant

__all__ = ["add_sums", "flatten_reshapes", "linear_layers", "merge_pads"]


def add_sums(model: ir.Model) -> bool:
    """Turn each Sum of two tensors into an Add; return whether there was one."""
    found = [node for node in model.graph if node.op_type == "Sum" and node.domain == "" and len(node.inputs) == 2]
    for node in found:
        replace_node(model.graph, node, ir.node("Add", list(node.inputs)))
    return bool(found)


def merge_pads(model: ir.Model) -> bool:
    """Merge a Pad with zeros around (H, W) into the convolutions that read it; return whether there was one."""
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
    """Return top, left, bottom and right of a Pad with zeros of a 4-D tensor; None for any other node."""
    if node.op_type != "Pad" or node.attributes.get_string("mode", "constant") != "constant" or len(node.inputs) < 2:
        return None
    pads, axes = constant_of(node.inputs[1]), None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        fill = constant_of(node.inputs[2])
        if fill is None or np.any(fill):
            return None
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = constant_of(node.inputs[3])
        if axes is None:
            return None
    if pads is None:
        return None
    chosen = [int(axis) % 4 for axis in axes.ravel()] if axes is not None else list(range(4))
    whole = [0] * 8
    if pads.size != 2 * len(chosen):
        return None
    for index, axis in enumerate(chosen):
        whole[axis], whole[axis + 4] = int(pads[index]), int(pads[index + len(chosen)])
    spatial = whole[2:4] + whole[6:8]
    return spatial if not any(whole[:2] + whole[4:6]) and min(spatial) >= 0 else None


def _takes_pads(reader: ir.Node, pad: ir.Node) -> bool:
    return (
        reader.op_type == "Conv"
        and reader.inputs[0] is pad.outputs[0]
        and reader.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and len(constant_shape(reader)) == 4
    )


def constant_shape(layer: ir.Node) -> tuple[int, ...]:
    """Return the shape of a layer's weights; () where they are not constant."""
    weight = constant_of(layer.inputs[1]) if len(layer.inputs) > 1 else None
    return () if weight is None else tuple(weight.shape)


def linear_layers(model: ir.Model) -> bool:
    """Turn a MatMul of a 2-D tensor with constant weights into a Gemm; return whether there was one."""
    found = []
    for node in model.graph:
        source = node.inputs[0] if node.inputs else None
        flat = source is not None and source.shape is not None and len(source.shape) == 2
        if node.op_type == "MatMul" and flat and len(constant_shape(node)) == 2:
            found.append(node)
    for node in found:
        weight = constant_of(node.inputs[1])
        assert weight is not None
        gemm = ir.node("Gemm", [node.inputs[0], node.inputs[1]], {"transB": 1})
        set_constant(model.graph, gemm, 1, f"{node.name}.weight", np.ascontiguousarray(weight.T))
        replace_node(model.graph, node, gemm)
    return bool(found)


def flatten_reshapes(model: ir.Model) -> bool:
    """Turn a Reshape or Squeeze of (N, C, 1, 1), or a Reshape to (N, everything), into Flatten; return whether there was one."""
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
