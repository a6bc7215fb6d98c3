"""Global poolings as two poolings, by rows and by columns; docs/placement.md says what that pays."""

import onnx_ir as ir

from emca_deploy.calibration.graphs.attention_path import is_global_pool

__all__ = ["split_poolings"]


def split_poolings(graph: ir.Graph) -> int:
    """Pool a quantized map along its rows, then along its columns.

    OpenVINO's INT8 average pooling of rows takes half the time of its global mean, which turns every number into a float before
    adding it; the columns that are left are little work.

    Returns:
        How many poolings were split.
    """
    split = 0
    for node in list(graph):
        sides = _pooled_sides(node)
        if sides is None:
            continue
        (batch, channels, height, width), value, pooled = sides, node.inputs[0], node.outputs[0]
        rows = ir.node("AveragePool", [value], {"kernel_shape": [1, width]}, name=f"{node.name}.rows")
        rows.outputs[0].name, rows.outputs[0].type = rows.name, pooled.type
        rows.outputs[0].shape = ir.Shape([batch, channels, height, 1])
        columns = ir.node("AveragePool", rows.outputs, {"kernel_shape": [height, 1]}, name=f"{node.name}.columns")
        columns.outputs[0].name, columns.outputs[0].type, columns.outputs[0].shape = columns.name, pooled.type, pooled.shape
        graph.insert_before(node, [rows, columns])
        ir.convenience.replace_all_uses_with(pooled, columns.outputs[0])
        graph.remove(node, safe=True)
        split += 1
    return split


def _pooled_sides(node: ir.Node) -> tuple[int | ir.SymbolicDim, int, int, int] | None:
    """Return (N, C, H, W) of the quantized map that a node takes the mean of, keeping four axes; None for any other node."""
    if not is_global_pool(node) or node.op_type == "GlobalMaxPool":
        return None
    value, pooled = node.inputs[0], node.outputs[0]
    producer = value.producer() if value is not None else None
    if value is None or producer is None or producer.op_type != "DequantizeLinear" or value.shape is None or pooled.shape is None:
        return None
    if len(value.shape) != 4 or list(pooled.shape)[2:] != [1, 1] or pooled.is_graph_output():
        return None
    channels, height, width = (side if isinstance(side, int) else 0 for side in list(value.shape)[1:])
    return (value.shape[0], channels, height, width) if min(height, width) > 1 else None
