"""Nodes for torch's layers on float32 maps and vectors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from emca_deploy.errors import ModelError
from emca_deploy.exporting.naming import MODULE
from emca_deploy.exporting.recording import Recorder, Traced, Written

__all__ = ["LAYERS"]

Pair = int | Sequence[int]
GRID_SAMPLE_RENAMED = 20
"""Opset that calls the mode "bilinear" of GridSample "linear"."""


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
    if x.dim() != 2:
        product = recorder.written["matmul"](recorder, x, weight.t())
        return product if bias is None else recorder.written["add"](recorder, product, bias)  # type: ignore[no-any-return]
    shape = [x.shape[0], weight.shape[0]]
    return recorder.node("Gemm", shape, [x, weight, bias], alpha=1.0, beta=1.0, transA=0, transB=1)


def _conv_transpose2d(
    recorder: Recorder, x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0,
    output_padding: Pair = 0, *others: Any,
) -> Traced:  # fmt: skip
    groups, dilation = others or (1, 1)
    windows = _windows(x, tuple(weight.shape[2:]), stride, padding, dilation)
    sizes = [
        (size - 1) * windows["strides"][axis] - 2 * windows["pads"][axis] + extra
        + windows["dilations"][axis] * (windows["kernel_shape"][axis] - 1) + 1
        for axis, (size, extra) in enumerate(zip(x.shape[2:], _pair(output_padding), strict=True))
    ]  # fmt: skip
    shape = [x.shape[0], weight.shape[1] * groups, *sizes]
    operands = [x, weight, bias]
    return recorder.node("ConvTranspose", shape, operands, group=groups, output_padding=_pair(output_padding), **windows)


def _avg_pool2d(
    recorder: Recorder, x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: None = None,
) -> Traced:  # fmt: skip
    windows = _windows(x, kernel_size, stride or kernel_size, padding, 1)
    shape = [*x.shape[:2], *_moved(x, windows, ceil_mode)]
    counted = int(count_include_pad)
    return recorder.node("AveragePool", shape, [x], ceil_mode=int(ceil_mode), count_include_pad=counted, **windows)


def _pad(recorder: Recorder, x: Traced, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Traced:
    if not any(pad):
        return x
    before, after = [0] * x.dim(), [0] * x.dim()
    for at, (first, last) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        before[-1 - at], after[-1 - at] = first, last
    shape = [size + first + last for size, first, last in zip(x.shape, before, after, strict=True)]
    onnx_mode = {"replicate": "edge"}.get(mode, mode)
    constant = torch.tensor(value or 0, dtype=x.dtype) if mode == "constant" else None
    return recorder.node("Pad", shape, [x, [*before, *after], constant], x.dtype, mode=onnx_mode)


def _interpolate(
    recorder: Recorder, x: Tensor, size: Pair | None = None, scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest", **_: Any,
) -> Traced:  # fmt: skip
    if mode != "nearest":
        raise ModelError(f"the exporter cannot write interpolation of mode {mode}", "report this with the architecture")
    if size is None:
        factors = [scale_factor] * 2 if isinstance(scale_factor, (int, float)) else list(scale_factor or ())
        sides = [int(side * float(factor or 1)) for side, factor in zip(x.shape[2:], factors, strict=True)]
    else:
        sides = list(_pair(size))
    scales = torch.tensor([1.0, 1.0, *(new / old for new, old in zip(sides, x.shape[2:], strict=True))])
    return recorder.node(
        "Resize", [*x.shape[:2], *sides], [x, None, scales],
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip


def _grid_sample(
    recorder: Recorder, x: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Traced:  # fmt: skip
    named = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode) if recorder.opset >= GRID_SAMPLE_RENAMED else mode
    shape = [*x.shape[:2], *grid.shape[1:3]]
    corners = int(bool(align_corners))
    return recorder.node("GridSample", shape, [x, grid], mode=named, padding_mode=padding_mode, align_corners=corners)


def _roi_align(
    recorder: Recorder, x: Tensor, boxes: Tensor, bins: int, sampling_ratio: int, aligned: bool
) -> Tensor:  # fmt: skip
    """Write RoiAlign over boxes (N, R, 4) in pixels of the map (N, C, H, W): crops (N, R, C, bins, bins).

    Both attributes with a default are written, because runtimes take different defaults.
    """
    images, regions = boxes.shape[:2]
    rows = recorder.written["reshape"](recorder, boxes, (images * regions, 4))
    owner = torch.arange(images).repeat_interleave(regions)
    crops = recorder.node(
        "RoiAlign", [images * regions, x.shape[1], bins, bins], [x, rows, owner],
        mode="avg", output_height=bins, output_width=bins, sampling_ratio=sampling_ratio, spatial_scale=1.0,
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )  # fmt: skip
    shaped: Traced = recorder.written["reshape"](recorder, crops, (images, regions, x.shape[1], bins, bins))
    return shaped


LAYERS: dict[str, Written] = {
    "batch_norm": _batch_norm, "conv2d": _conv2d, "linear": _linear, "max_pool2d": _max_pool2d, "avg_pool2d": _avg_pool2d,
    "conv_transpose2d": _conv_transpose2d, "pad": _pad, "interpolate": _interpolate, "grid_sample": _grid_sample,
    "roi_align_operator": _roi_align,
}  # fmt: skip
"""Layers of torch, and what writes their nodes."""
