"""Batch and image sizes: freeing a batch of 1 that an exporter wrote into a Reshape, and fixing dynamic sides."""

import numpy as np
import onnx_ir as ir

from emca_deploy.canonical.edit import constant_of, set_constant

__all__ = ["fix_image_size", "free_batch", "free_negative_sizes", "image_value_of"]


def image_value_of(graph: ir.Graph) -> ir.Value:
    """Return the image input: the first that is no initializer."""
    return next(value for value in graph.inputs if str(value.name) not in graph.initializers)


def free_batch(model: ir.Model) -> bool:
    """Let each Reshape of a dynamic batch to a batch of 1 keep the batch instead; return whether any changed."""
    graph = model.graph
    batch = image_value_of(graph).shape
    if batch is None or isinstance(batch[0], int):
        return False
    changed = False
    for node in graph:
        shape = constant_of(node.inputs[1]) if node.op_type == "Reshape" and len(node.inputs) > 1 else None
        if shape is None or shape.size < 2 or int(shape[0]) != 1 or node.attributes.get_int("allowzero", 0) != 0:
            continue
        source = node.inputs[0]
        if source is None or source.shape is None or len(source.shape) < 2 or isinstance(source.shape[0], int):
            continue
        set_constant(graph, node, 1, f"{node.name}.shape", np.array([0, *shape[1:]], np.int64))
        changed = True
    if changed:
        for value in graph.outputs:
            if value.shape is not None and len(value.shape) and value.shape[0] == 1:
                value.shape = ir.Shape([batch[0], *list(value.shape)[1:]])
    return changed


def free_negative_sizes(graph: ir.Graph) -> None:
    """Make sizes below 1 of inputs and outputs dynamic, as exporters mean -1; the first size is the batch."""
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is not None and any(isinstance(size, int) and size < 1 for size in value.shape):
            sizes = [size if not isinstance(size, int) or size > 0 else None for size in value.shape]
            value.shape = ir.Shape(["N" if index == 0 and size is None else size for index, size in enumerate(sizes)])


def fix_image_size(graph: ir.Graph, size: tuple[int, int], *, channels_last: bool) -> None:
    """Set the image input's height and width where they are dynamic."""
    value = image_value_of(graph)
    if value.shape is not None:
        sides = list(value.shape)
        for index, side in enumerate(size, 1 if channels_last else 2):
            if not isinstance(sides[index], int):
                sides[index] = side
        value.shape = ir.Shape(sides)
