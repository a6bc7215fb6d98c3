"""Nodes for the functions of torch that classifiers call: layers and arithmetic on float32 tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from emca_deploy.exporting.naming import MODULE
from emca_deploy.exporting.recording import Recorder, Traced, Written

__all__ = ["LAYERS"]

Pair = int | Sequence[int]


def elementwise(op_type: str) -> Written:
    def write(recorder: Recorder, *operands: Tensor | float, **_: Any) -> Traced:
        shapes = [each.shape for each in operands if isinstance(each, Tensor)]
        return recorder.node(op_type, np.broadcast_shapes(*shapes), operands)

    return write


def _mul(recorder: Recorder, x: Tensor | float, factor: Tensor | float) -> Traced:
    if isinstance(x, Traced) and isinstance(factor, (int, float)) and factor == 1:
        return x
    return elementwise("Mul")(recorder, x, factor)


def _reduction(op_type: str) -> Written:
    def write(recorder: Recorder, x: Tensor, dim: Pair, keepdim: bool = False) -> Traced:
        axes = [dim] if isinstance(dim, int) else list(dim)
        reduced = {axis % x.dim() for axis in axes}
        shape = [1 if axis in reduced else size for axis, size in enumerate(x.shape) if keepdim or axis not in reduced]
        return recorder.node(op_type, shape, [x, axes], noop_with_empty_axes=0, keepdims=int(keepdim))

    return write


def _pair(number: Pair) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else (number[0], number[1])


def _windows(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> dict[str, Any]:
    return {
        "auto_pad": "NOTSET", "dilations": _pair(dilation), "kernel_shape": _pair(kernel), "pads": _pair(padding) * 2,
        "strides": _pair(stride),
    }  # fmt: skip


def _moved(x: Tensor, windows: dict[str, Any], ceil_mode: bool = False) -> list[int]:
    """Return height and width of what windows over a map give.

    Source: PyTorch's documentation of Conv2d and MaxPool2d. With `ceil_mode`, a last window must begin inside the map or its
    padding before it.
    """
    sizes = []
    for axis, size in enumerate(x.shape[2:]):
        kernel, stride, padding = (windows[key][axis] for key in ("kernel_shape", "strides", "pads"))
        room = size + 2 * padding - windows["dilations"][axis] * (kernel - 1) - 1
        count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
        sizes.append(count - (ceil_mode and (count - 1) * stride >= size + padding))
    return sizes


def _conv2d(
    recorder: Recorder, x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0,
    dilation: Pair = 1, groups: int = 1,
) -> Traced:  # fmt: skip
    windows = _windows(x, tuple(weight.shape[2:]), stride, padding, dilation)
    shape = [x.shape[0], weight.shape[0], *_moved(x, windows)]
    return recorder.node("Conv", shape, [x, weight, bias], group=groups, **windows)


def _max_pool2d(
    recorder: Recorder, x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Traced:  # fmt: skip
    windows = _windows(x, kernel_size, stride or kernel_size, padding, dilation)
    shape = [*x.shape[:2], *_moved(x, windows, ceil_mode)]
    return recorder.node("MaxPool", shape, [x], ceil_mode=int(ceil_mode), storage_order=0, **windows)


def _batch_norm(
    recorder: Recorder, x: Traced, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float, **_: Any
) -> Traced:  # fmt: skip
    layer = x.value.producer()
    if layer is not None and layer.op_type == "Conv":  # batch norm folds into it, and so it has batch norm's name
        layer.metadata_props[MODULE] = recorder.path[-1]
    return recorder.node("BatchNormalization", x.shape, [x, weight, bias, mean, variance], epsilon=eps)


def _linear(recorder: Recorder, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Traced:
    shape = [x.shape[0], weight.shape[0]]
    return recorder.node("Gemm", shape, [x, weight, bias], alpha=1.0, beta=1.0, transA=0, transB=1)


def _cat(recorder: Recorder, tensors: Sequence[Traced], dim: int = 0) -> Traced:
    if len(tensors) == 1:
        return tensors[0]
    axis = dim % tensors[0].dim()
    shape = list(tensors[0].shape)
    shape[axis] = sum(each.shape[axis] for each in tensors)
    return recorder.node("Concat", shape, tensors, axis=axis)


def _reshape(recorder: Recorder, x: Tensor, *given: Any) -> Traced:
    shape = list(given[0] if isinstance(given[0], Sequence) else given)
    known = -int(np.prod(shape))
    return recorder.node("Reshape", [x.numel() // known if n < 0 else n for n in shape], [x, shape], allowzero=1)


def _flatten(recorder: Recorder, x: Tensor, start_dim: int) -> Traced:
    return _reshape(recorder, x, recorder.batch or -1, *x.shape[1:start_dim], x.shape[start_dim:].numel())


LAYERS: dict[str, Written] = {
    "add": elementwise("Add"), "sub": elementwise("Sub"), "mul": _mul, "div": elementwise("Div"),
    "relu": elementwise("Relu"), "sigmoid": elementwise("Sigmoid"), "sqrt": elementwise("Sqrt"),
    "mean": _reduction("ReduceMean"), "sum": _reduction("ReduceSum"), "batch_norm": _batch_norm, "cat": _cat, "conv2d": _conv2d,
    "flatten": _flatten, "linear": _linear, "max_pool2d": _max_pool2d, "reshape": _reshape,
}  # fmt: skip
"""Functions of torch that the networks call."""
