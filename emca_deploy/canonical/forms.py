"""One form for sums and for flattening, which exporters write in several."""

import numpy as np
import onnx_ir as ir

from emca_deploy.canonical.edit import constant_of, replace_node

__all__ = ["add_sums", "flatten_reshapes"]


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
