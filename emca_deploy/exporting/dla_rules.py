"""Which nodes of an ONNX graph NVIDIA's deep learning accelerator (DLA) runs, and why it does not run the others.

Sources: NvInfer.h of TensorRT 8 to 10.7 and NVIDIA's page "DLA supported layers and restrictions". They were not tried on a DLA.
"""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from emca_deploy.canonical.edit import ints_of

__all__ = ["LARGEST_BATCH", "LARGEST_KERNEL", "LARGEST_WINDOW", "MOST_MAPS", "OffDla", "nodes_off_dla"]

LARGEST_BATCH = 4096
MOST_MAPS = 8192
"""Limit on channels, groups and any other size but the batch."""

LARGEST_KERNEL, LARGEST_CONV_STRIDE, LARGEST_DILATION, LARGEST_CONV_PADDING = 32, 8, 32, 31
LARGEST_WINDOW, LARGEST_POOL_STRIDE, LARGEST_POOL_PADDING = 8, 16, 7

ACTIVATIONS = frozenset({"Relu", "Sigmoid", "Tanh", "Clip"})
ELEMENTWISE = frozenset({"Add", "Mul", "Sub", "Max", "Min"})
GLOBAL = frozenset({"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"})
SHAPE_ONLY = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"})


@dataclass(frozen=True)
class OffDla:
    """A node that no DLA runs; unless it is at the network's end, it splits the DLA's part where the GPU runs it instead."""

    node: str
    operator: str
    reason: str


def nodes_off_dla(graph: ir.Graph) -> list[OffDla]:
    """Return the nodes that no DLA runs, in order; reshaping is one, because logs show it on the GPU."""
    found = ((node, _reason_off_dla(node)) for node in graph)
    return [OffDla(node.name or str(node.outputs[0].name), node.op_type, reason) for node, reason in found if reason is not None]


def _reason_off_dla(node: ir.Node) -> str | None:
    too_large = [
        size for value in node.outputs for size in list(value.shape or [])[1:] if isinstance(size, int) and size > MOST_MAPS
    ]
    if too_large:
        return f"a size of {too_large[0]}; a DLA takes {MOST_MAPS} at most"
    return RULES.get(node.op_type, _no_such_layer)(node)


def _no_such_layer(node: ir.Node) -> str:
    reasons = {
        **dict.fromkeys(GLOBAL, f"pools whole maps; a DLA's windows are {LARGEST_WINDOW} at most"),
        **dict.fromkeys(SHAPE_ONLY, "only changes the shape"),
        **dict.fromkeys(("Gemm", "MatMul"), "has two axes; a DLA's layers have (N, C, H, W)"),
    }
    return reasons.get(node.op_type, "no such layer on a DLA")


def _concat(node: ir.Node) -> str | None:
    return None if node.attributes.get_int("axis", 0) in (1, -3) else "joins along another axis than the channels"


def _elementwise(node: ir.Node) -> str | None:
    constant = any(value is not None and value.const_value is not None for value in node.inputs)
    return "reads a constant, which a DLA does not have as a layer" if constant else None


def _conv(node: ir.Node) -> str | None:
    weight = node.inputs[1].const_value if node.inputs[1] is not None else None
    if weight is None or len(weight.shape) != 4:
        return "not a two-dimensional convolution with constant weights"
    kernel = [int(side) for side in weight.shape.numpy()[2:]]
    pads = ints_of(node, "pads", [0, 0, 0, 0])
    groups = node.attributes.get_int("group", 1)
    assert groups is not None  # it has a default
    maps = max(int(weight.shape.numpy()[0]), int(weight.shape.numpy()[1]) * groups, groups)
    rules = (
        (max(kernel) > LARGEST_KERNEL, f"a kernel of {max(kernel)}; {LARGEST_KERNEL} at most"),
        (max(ints_of(node, "strides", [1])) > LARGEST_CONV_STRIDE, f"a stride above {LARGEST_CONV_STRIDE}"),
        (max(ints_of(node, "dilations", [1])) > LARGEST_DILATION, f"a dilation above {LARGEST_DILATION}"),
        (max(pads) > LARGEST_CONV_PADDING, f"a padding above {LARGEST_CONV_PADDING}"),
        (any(pad >= side for pad, side in zip(pads, kernel * 2, strict=True)), "a padding as large as the kernel"),
        (maps > MOST_MAPS, f"{maps} maps; {MOST_MAPS} at most"),
    )
    return next((reason for wrong, reason in rules if wrong), None)


def _pool(node: ir.Node) -> str | None:
    window = ints_of(node, "kernel_shape", [])
    rules = (
        (len(window) != 2, "not a two-dimensional pooling"),
        (max(window, default=1) > LARGEST_WINDOW, f"a window of {max(window, default=1)}; {LARGEST_WINDOW} at most"),
        (max(ints_of(node, "strides", [1])) > LARGEST_POOL_STRIDE, f"a stride above {LARGEST_POOL_STRIDE}"),
        (max(ints_of(node, "pads", [0])) > LARGEST_POOL_PADDING, f"a padding above {LARGEST_POOL_PADDING}"),
        (max(ints_of(node, "dilations", [1])) > 1, "a dilated pooling"),
    )
    return next((reason for wrong, reason in rules if wrong), None)


RULES: dict[str, Callable[[ir.Node], str | None]] = {
    "Conv": _conv,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "Concat": _concat,
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(ACTIVATIONS, lambda node: None),
}
"""Checks by operator that a DLA has: each returns why a node exceeds its limits, or None."""
