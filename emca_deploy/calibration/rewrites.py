"""Rewrites of a quantized graph, exact in real arithmetic, that make a backend faster; docs/placement.md says what each pays."""

import onnx_ir as ir

__all__ = ["copy_shared_shortcuts", "rewrite_for"]


def rewrite_for(graph: ir.Graph, backend: str) -> None:
    """Rewrite a graph that has its Q/DQ pairs, in place, as measures faster on a backend; most want nothing."""
    if backend == "openvino":
        copy_shared_shortcuts(graph)


def copy_shared_shortcuts(graph: ir.Graph) -> int:
    """Let a residual Add read a copy of its shortcut where something else reads the shortcut too and nothing orders the two.

    OpenVINO adds a shortcut inside the convolution before, in place: the sum overwrites the shortcut. It does so only when every
    other reader of the shortcut is on the way to the sum. EMCA's poolings of earlier blocks are not, and without a copy the
    convolution returns float to an addition of its own. A max-pooling of one pixel is the identity that costs least: it copies
    INT8, and graph optimizers leave it in.

    Returns:
        How many copies were put in.
    """
    copies = 0
    for node in list(graph):
        if node.op_type != "Add" or len(node.inputs) != 2:
            continue
        for index, value in enumerate(node.inputs):
            if value is None or not _is_dequantized(value) or not _ends_convolution(node.inputs[1 - index]):
                continue
            way = _ancestors(node)
            if all(use.node is node or use.node in way for use in value.uses()):
                continue
            copy = ir.node("MaxPool", [value], {"kernel_shape": [1, 1]}, name=f"{node.name}.copy")
            copied = copy.outputs[0]
            copied.name, copied.shape, copied.type = copy.name, value.shape, value.type
            graph.insert_before(node, copy)
            node.replace_input_with(index, copied)
            copies += 1
    return copies


def _is_dequantized(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _ends_convolution(value: ir.Value | None) -> bool:
    """Return whether a value is what a convolution returns, quantized or not, and nothing else reads it."""
    while value is not None and len(value.uses()) == 1 and (producer := value.producer()) is not None:
        if producer.op_type == "Conv":
            return True
        if producer.op_type not in {"DequantizeLinear", "QuantizeLinear"}:
            return False
        value = producer.inputs[0]
    return False


def _ancestors(node: ir.Node) -> set[ir.Node]:
    """Return every node on some way to `node`."""
    found: set[ir.Node] = set()
    waiting = [node]
    while waiting:
        for value in waiting.pop().inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer not in found:
                found.add(producer)
                waiting.append(producer)
    return found
