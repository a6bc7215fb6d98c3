"""Writing EMCA's multi-scale aggregation as additions, which OpenVINO joins into two kernels; exact but for the order of sums.

Exported, it is `relu(w0 * current + repeat(sum_r w_r * previous_r))`: a Concat, a Mul and a ReduceSum for the sum over the
scales, and a Concat that repeats the channels. Each of these nodes wakes every thread for a few hundred numbers.
"""

import numpy as np
import onnx_ir as ir

from emca_deploy.canonical.edit import insert_node, int64_constant, new_constant, producer_of, sole_producer

__all__ = ["add_scales", "broadcast_repeats"]


def add_scales(graph: ir.Graph) -> int:
    """Replace weighted sums over concatenated descriptors by additions of scaled ones, in place; return their number.

    The pattern is `ReduceSum(Mul(Concat(d_1, ..., d_n; axis 3), w); axis 3)` with d_i (N, C, K, 1) and constant w (1, 1, 1, n).
    """
    replaced = 0
    for node in list(graph):
        found = _weighted_sum(node)
        if found is None:
            continue
        descriptors, weights = found
        total: ir.Value | None = None
        for index, (descriptor, weight) in enumerate(zip(descriptors, weights, strict=True)):
            scale = new_constant(graph, f"{node.name}.weight{index}", np.array([[[[weight]]]], np.float32))
            term = insert_node(graph, node, "Mul", [descriptor, scale], f"{node.name}.scaled{index}", descriptor)
            total = term if total is None else insert_node(graph, node, "Add", [total, term], f"{node.name}.sum{index}", term)
        assert total is not None
        ir.convenience.replace_all_uses_with(node.outputs[0], total)
        _remove_dead(graph, node)
        replaced += 1
    return replaced


def broadcast_repeats(graph: ir.Graph) -> int:
    """Replace each Concat that repeats channels before an addition by broadcasting, in place; return their number.

    The pattern is `Relu(Add(Mul(x, constant scalar), Concat(s, ..., s; axis 1)))` with x (N, C, 1, 1) and s (N, C / k, 1, 1).
    All of it is then computed at shape (N, 1, k, C / k), with the same numbers in the same order.
    """
    removed = 0
    for relu in list(graph):
        found = _added_repeat(relu)
        if found is None:
            continue
        scaled, repeat = found
        source, weight = scaled.inputs
        narrow = repeat.inputs[0]
        assert source is not None
        assert narrow is not None
        copies, width = len(repeat.inputs), _channels(narrow)
        batch = source.shape[0] if source.shape is not None else None
        wide = ir.Shape([batch, 1, copies, width])
        name = relu.name or "aggregation"
        own = _reshape(graph, relu, source, [-1, 1, copies, width], f"{name}.own")
        other = _reshape(graph, relu, narrow, [-1, 1, 1, width], f"{name}.others")
        product = insert_node(graph, relu, "Mul", [own, weight], f"{name}.scaled", source, shape=wide)
        total = insert_node(graph, relu, "Add", [product, other], f"{name}.total", product)
        positive = insert_node(graph, relu, "Relu", [total], f"{name}.positive", total)
        result = _reshape(graph, relu, positive, [-1, copies * width, 1, 1], f"{name}.descriptor")
        ir.convenience.replace_all_uses_with(relu.outputs[0], result)
        _remove_dead(graph, relu)
        removed += 1
    return removed


def _weighted_sum(node: ir.Node) -> tuple[list[ir.Value], list[float]] | None:
    """Return the descriptors and weights of a weighted sum; None for other nodes."""
    if node.op_type != "ReduceSum" or node.outputs[0].is_graph_output() or _constant(node, 1) != [3]:
        return None
    product = sole_producer(node.inputs[0], "Mul")
    stack = sole_producer(product.inputs[0], "Concat") if product is not None else None
    if product is None or stack is None or stack.attributes.get_int("axis", 0) != 3:
        return None
    weight = product.inputs[1].const_value if product.inputs[1] is not None else None
    descriptors = [value for value in stack.inputs if value is not None and _is_descriptor(value)]
    if weight is None or tuple(weight.shape) != (1, 1, 1, len(stack.inputs)) or len(descriptors) != len(stack.inputs):
        return None
    return descriptors, [float(one) for one in weight.numpy().ravel()]


def _added_repeat(relu: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """Return the Mul and the repeating Concat whose sum a Relu reads; None for other nodes."""
    if relu.op_type != "Relu" or relu.outputs[0].is_graph_output():
        return None
    add = sole_producer(relu.inputs[0], "Add")
    if add is None:
        return None
    for first, second in (add.inputs, reversed(add.inputs)):
        scaled, repeat = sole_producer(first, "Mul"), sole_producer(second, "Concat")
        if scaled is None or repeat is None or repeat.attributes.get_int("axis", 0) != 1:
            continue
        same = all(value is repeat.inputs[0] for value in repeat.inputs)
        if same and _is_pooled(repeat.inputs[0]) and _is_pooled(scaled.inputs[0]) and _is_scalar(scaled.inputs[1]):
            return scaled, repeat
    return None


def _is_descriptor(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and list(value.shape)[3:] == [1] and _channels(value) > 0


def _is_pooled(value: ir.Value | None) -> bool:
    """Return whether a descriptor has one number for each channel. With two, OpenVINO would reorder them at each reshape."""
    return _is_descriptor(value) and value is not None and value.shape is not None and value.shape[2] == 1


def _channels(value: ir.Value) -> int:
    assert value.shape is not None
    channels = value.shape[1]
    return channels if isinstance(channels, int) else 0


def _is_scalar(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and value.const_value.size == 1


def _constant(node: ir.Node, index: int) -> list[int] | None:
    value = node.inputs[index] if len(node.inputs) > index else None
    return value.const_value.numpy().ravel().tolist() if value is not None and value.const_value is not None else None


def _reshape(graph: ir.Graph, before: ir.Node, value: ir.Value, sides: list[int], name: str) -> ir.Value:
    batch = value.shape[0] if value.shape is not None else None
    shape = int64_constant(graph, f"{name}.shape", sides)
    return insert_node(graph, before, "Reshape", [value, shape], name, value, shape=ir.Shape([batch, *sides[1:]]))


def _remove_dead(graph: ir.Graph, node: ir.Node) -> None:
    """Remove a node that nothing reads, and the nodes that only it needed."""
    waiting = [node]
    while waiting:
        dead = waiting.pop()
        if dead.graph is None or any(output.uses() or output.is_graph_output() for output in dead.outputs):
            continue
        producers = [producer for value in dead.inputs if (producer := producer_of(value)) is not None]
        graph.remove(dead, safe=True)
        waiting += producers
