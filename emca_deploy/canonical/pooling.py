"""One form for the mean over a whole map: GlobalAveragePool, and Flatten after it where the axes are dropped."""

import onnx_ir as ir

from emca_deploy.canonical.edit import constant_of, ints_of, producer_of, replace_node

__all__ = ["covers_map", "is_descriptor", "pool_globally", "reduced_axes"]


def pool_globally(model: ir.Model) -> bool:
    """Turn ReduceMean over (H, W), and AveragePool of the whole map, into GlobalAveragePool; return whether there was any.

    ONNX Runtime has an INT8 kernel only for the pooling, and TensorRT before 8.6 has a faster one.
    """
    graph, changed = model.graph, False
    for node in list(graph):
        source = node.inputs[0] if node.inputs and node.domain == "" else None
        if source is None or source.shape is None or len(source.shape) != 4:
            continue
        # An AveragePool after another is the last of several windows that a DLA needs for a large map.
        covers = covers_map(node) and producer_of(source, "AveragePool") is None
        if not covers and not (node.op_type == "ReduceMean" and reduced_axes(node) == [2, 3]):
            continue
        pool = ir.node("GlobalAveragePool", [source], metadata_props=dict(node.metadata_props))
        if node.op_type == "ReduceMean" and node.attributes.get_int("keepdims", 1) == 0:
            pooled = pool.outputs[0]
            pool.name, pooled.name = f"{node.name}.pool", f"{node.outputs[0].name}/pooled"
            pooled.type, pooled.shape = source.type, ir.Shape([*list(source.shape)[:2], 1, 1])
            graph.insert_before(node, pool)
            replace_node(graph, node, ir.node("Flatten", [pooled], {"axis": 1}))
        else:
            replace_node(graph, node, pool)
        changed = True
    return changed


def reduced_axes(node: ir.Node) -> list[int]:
    """Return the axes of a reduction of a 4-D tensor, sorted and not negative; none where they are computed or left out."""
    constant = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    given = [] if constant is None else [int(axis) for axis in constant.ravel()]
    return sorted(axis % 4 for axis in ints_of(node, "axes", given))


def covers_map(node: ir.Node) -> bool:
    """Return whether a node is an AveragePool whose one window is the whole map, without padding."""
    source, window = node.inputs[0] if node.inputs else None, ints_of(node, "kernel_shape", [])
    if node.op_type != "AveragePool" or source is None or source.shape is None or len(source.shape) != 4:
        return False
    plain = node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID") and not any(ints_of(node, "pads", []))
    return plain and list(source.shape)[2:] == window


def is_descriptor(value: ir.Value | None) -> bool:
    """Return whether a tensor is (N, C, 1, 1) with known C."""
    sides = list(value.shape) if value is not None and value.shape is not None else []
    return len(sides) == 4 and isinstance(sides[1], int) and sides[1] > 0 and sides[2:] == [1, 1]
