"""One form for the mean over a whole map: GlobalAveragePool, followed by Flatten where the axes are dropped."""

import onnx_ir as ir

from emca_deploy.canonical.edit import constant_of, replace_node

__all__ = ["pool_globally"]


def pool_globally(model: ir.Model) -> bool:
    """Turn ReduceMean over (H, W), and AveragePool of the whole map, into GlobalAveragePool; return whether there was one.

    They are the same, but ONNX Runtime has an INT8 kernel for the pooling only, and TensorRT before 8.6 a faster one.
    """
    graph, changed = model.graph, False
    for node in list(graph):
        source = node.inputs[0] if node.inputs and node.domain == "" else None
        if source is None or source.shape is None or len(source.shape) != 4:
            continue
        if not (_reduces_map(node) or _covers_map(node)):
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


def _reduces_map(node: ir.Node) -> bool:
    if node.op_type != "ReduceMean":
        return False
    attribute = node.attributes.get("axes")
    constant = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = [] if constant is None else [int(axis) for axis in constant.ravel()]
    if attribute is not None:
        axes = list(attribute.as_ints())
    return sorted(axis % 4 for axis in axes) == [2, 3]


def _covers_map(node: ir.Node) -> bool:
    """Return whether an AveragePool's one window is the whole map, without padding."""
    source, window, pads = node.inputs[0], node.attributes.get("kernel_shape"), node.attributes.get("pads")
    if node.op_type != "AveragePool" or source is None or source.shape is None or window is None:
        return False
    unpadded = pads is None or not any(pads.as_ints())
    plain = node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    before = source.producer()
    if before is not None and before.op_type == "AveragePool":
        return False  # the last of several windows that a DLA needs for a large map
    return unpadded and plain and list(source.shape)[2:] == list(window.as_ints())
