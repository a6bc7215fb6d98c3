"""Forms of RoiAlign in an exported graph: the operator of ONNX, or bilinear samples on a grid.

PyTorch computes both itself, so that the graph can be compared with it. Only the operator has an adaptive number of samples.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from emca_deploy.networks.detectors.roi import RoiAlign, RoiForm, sample_on_grid

__all__ = ["roi_align_operator", "using_roi_form"]


def roi_align_operator(x: Tensor, boxes: Tensor, bins: int, sampling_ratio: int, aligned: bool) -> Tensor:
    """Compute RoiAlign; in an export it becomes ONNX's operator. See `RoiForm`."""
    if has_torch_function((x, boxes)):
        crops: Tensor = handle_torch_function(roi_align_operator, (x, boxes), x, boxes, bins, sampling_ratio, aligned)
        return crops
    if sampling_ratio > 0:
        return sample_on_grid(x, boxes, bins, sampling_ratio, aligned)
    return torch.stack(
        [torch.stack([_crop(level, box, bins, aligned) for box in own]) for level, own in zip(x, boxes, strict=True)]
    )


def _crop(level: Tensor, box: Tensor, bins: int, aligned: bool) -> Tensor:
    """Return the crop (C, bins, bins) of a box (4,) with an adaptive number of samples (He et al., 2017, section 3)."""
    columns = _samples(box[0], box[2], bins, aligned, level.shape[2])
    rows = _samples(box[1], box[3], bins, aligned, level.shape[1])
    return rows @ level @ columns.T


def _samples(start: Tensor, end: Tensor, bins: int, aligned: bool, length: int) -> Tensor:
    """Return the weight of each pixel of an axis in each bin, (bins, length)."""
    side = end - start if aligned else (end - start).clamp(min=1.0)
    ratio = max(int(torch.ceil(side / bins)), 1)
    steps = (torch.arange(bins * ratio, dtype=start.dtype) + 0.5) / (bins * ratio)
    places = (start - 0.5 * aligned + side * steps).clamp(0.0, length - 1.0)
    hats = (1 - (places[:, None] - torch.arange(length, dtype=start.dtype)).abs()).clamp(min=0.0)
    return hats.reshape(bins, ratio, length).mean(1)


@contextmanager
def using_roi_form(module: nn.Module, form: RoiForm) -> Iterator[None]:
    """Let a detector crop its regions with `form`."""
    croppers = [each for each in module.modules() if isinstance(each, RoiAlign)]
    before = [each.form for each in croppers]
    for each in croppers:
        each.form = form
    try:
        yield
    finally:
        for each, own in zip(croppers, before, strict=True):
            each.form = own
