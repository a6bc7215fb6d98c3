"""The operators of exported networks as functions of PyTorch tensors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from emca_deploy.canonical.edit import ints_of

__all__ = ["OPERATORS"]

Operands = Sequence[Any]
"""A node's inputs: tensors, or None where an input is left out."""


def _numbers(operands: Operands, index: int) -> list[int] | None:
    """Return integers from a constant input; None where it is left out."""
    return None if len(operands) <= index or operands[index] is None else [int(number) for number in operands[index].reshape(-1)]


def _padded(node: ir.Node, values: Tensor, fill: float = 0.0) -> Tensor:
    """Return a map with a node's `pads` around it."""
    pads = ints_of(node, "pads", [])
    if not any(pads):
        return values
    axes = len(pads) // 2
    return F.pad(values, [side for axis in reversed(range(axes)) for side in (pads[axis], pads[axes + axis])], value=fill)


def _conv(node: ir.Node, operands: Operands) -> Tensor:
    values, weight, bias = (*operands, None)[:3]
    axes = weight.ndim - 2
    strides, dilations = ints_of(node, "strides", [1] * axes), ints_of(node, "dilations", [1] * axes)
    pads, groups = ints_of(node, "pads", [0] * (2 * axes)), node.attributes.get_int("group", 1)
    padding = pads[:axes]
    if pads[axes:] != padding:
        values, padding = _padded(node, values), [0] * axes
    return (F.conv1d if axes == 1 else F.conv2d)(values, weight, bias, strides, padding, dilations, groups)


def _gemm(node: ir.Node, operands: Operands) -> Tensor:
    values, weight, bias = (*operands, None)[:3]
    if node.attributes.get_int("transA", 0):
        values = values.T
    product = values @ (weight.T if node.attributes.get_int("transB", 0) else weight)
    product = product * node.attributes.get_float("alpha", 1.0)
    result: Tensor = product if bias is None else product + bias * node.attributes.get_float("beta", 1.0)
    return result


def _max_pool(node: ir.Node, operands: Operands) -> Tensor:
    kernel = ints_of(node, "kernel_shape", [])
    strides, dilations = ints_of(node, "strides", [1] * len(kernel)), ints_of(node, "dilations", [1] * len(kernel))
    ceil = bool(node.attributes.get_int("ceil_mode", 0))
    return F.max_pool2d(_padded(node, operands[0], float("-inf")), kernel, strides, 0, dilations, ceil)


def _average_pool(node: ir.Node, operands: Operands) -> Tensor:
    kernel, pads = ints_of(node, "kernel_shape", []), ints_of(node, "pads", [0] * 4)
    ceil, counts = bool(node.attributes.get_int("ceil_mode", 0)), bool(node.attributes.get_int("count_include_pad", 0))
    strides = ints_of(node, "strides", [1] * len(kernel))
    return F.avg_pool2d(operands[0], kernel, strides, pads[:2], ceil, counts)


def _global_average(node: ir.Node, operands: Operands) -> Tensor:
    values: Tensor = operands[0]
    return values.mean(tuple(range(2, values.ndim)), keepdim=True)


def _reshape(node: ir.Node, operands: Operands) -> Tensor:
    values, sizes = operands[0], _numbers(operands, 1) or []
    result: Tensor = values.reshape([values.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)])
    return result


def _flatten(node: ir.Node, operands: Operands) -> Tensor:
    values: Tensor = operands[0]
    axis = node.attributes.get_int("axis", 1) % (values.ndim + 1)
    return values.reshape(values.shape[:axis].numel(), -1)


def _axes(node: ir.Node, operands: Operands) -> list[int] | None:
    """Return the axes of a reduction, an attribute or an input."""
    return ints_of(node, "axes", []) or _numbers(operands, 1)


def _reduction(reduce: Callable[..., Tensor]) -> Callable[[ir.Node, Operands], Tensor]:
    def reduced(node: ir.Node, operands: Operands) -> Tensor:
        axes = _axes(node, operands) or list(range(operands[0].ndim))
        return reduce(operands[0], dim=axes, keepdim=bool(node.attributes.get_int("keepdims", 1)))

    return reduced


def _clip(node: ir.Node, operands: Operands) -> Tensor:
    values, low, high = (*operands, None, None)[:3]
    return torch.clamp(values, low, high)


def _hard_sigmoid(node: ir.Node, operands: Operands) -> Tensor:
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return torch.clamp(operands[0] * alpha + beta, 0, 1)


def _concat(node: ir.Node, operands: Operands) -> Tensor:
    return torch.cat(list(operands), dim=node.attributes.get_int("axis", 0))


def _transpose(node: ir.Node, operands: Operands) -> Tensor:
    result: Tensor = operands[0].permute(ints_of(node, "perm", list(reversed(range(operands[0].ndim)))))
    return result


def _squeeze(node: ir.Node, operands: Operands) -> Tensor:
    axes = _axes(node, operands)
    result: Tensor = operands[0].squeeze() if axes is None else operands[0].squeeze(tuple(axes))
    return result


def _unsqueeze(node: ir.Node, operands: Operands) -> Tensor:
    values, axes = operands[0], _axes(node, operands) or []
    for axis in sorted(axis % (values.ndim + len(axes)) for axis in axes):
        values = values.unsqueeze(axis)
    result: Tensor = values
    return result


def _plain(function: Callable[..., Tensor]) -> Callable[[ir.Node, Operands], Tensor]:
    return lambda _, operands: function(*operands)


OPERATORS: Mapping[str, Callable[[ir.Node, Operands], Tensor]] = {
    "Add": _plain(torch.add),
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _plain(torch.div),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda _, operands: operands[0],
    "MatMul": _plain(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _plain(torch.mul),
    "Pow": _plain(torch.pow),
    "ReduceMean": _reduction(torch.mean),
    "ReduceSum": _reduction(torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Sigmoid": _plain(torch.sigmoid),
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
