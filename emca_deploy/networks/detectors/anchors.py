"""Anchors: the boxes at each place of each level that deltas refer to."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from emca_deploy.arrays import Float64Array
from emca_deploy.tasks.detector_config import DetectorConfig

__all__ = ["level_anchors"]


def _cell(sizes: Sequence[float], stride: float, config: DetectorConfig) -> Float64Array:
    """Return the anchors (A, 4) float64 of the first place of a level."""
    sides = [(size / math.sqrt(ratio), size * math.sqrt(ratio)) for ratio in config.anchor_ratios for size in sizes]
    width, height = np.array(sides).T
    if config.anchor_rounding == "legacy":  # corners are the outermost pixels, so the distance is one less than the width
        centre = (stride - 1) / 2
        half_width, half_height = (width - 1) / 2, (height - 1) / 2
        return np.round(np.stack([centre - half_width, centre - half_height, centre + half_width, centre + half_height], 1))
    corners = np.stack([-width, -height, width, height], 1) / 2
    return (np.round(corners) if config.anchor_rounding == "nearest" else corners) + config.anchor_centre * stride


def level_anchors(
    shapes: Sequence[tuple[int, int]], image_size: tuple[int, int], first_stride: int, config: DetectorConfig
) -> list[Tensor]:
    """Return the anchors (H * W * A, 4) float32 of each level, as x1, y1, x2, y2 in pixels.

    Args:
        shapes: Height and width of each level, finest first.
        image_size: Height and width of the image.
        first_stride: Stride of the finest level; each further level's is twice that of the one below.
        config: Sizes and conventions.
    """
    anchors = []
    for level, (height, width) in enumerate(shapes):
        stride = first_stride * 2**level
        steps = (stride, stride)
        if config.anchor_strides == "divided":
            steps = (image_size[0] // height, image_size[1] // width)
        y, x = np.meshgrid(np.arange(height) * steps[0], np.arange(width) * steps[1], indexing="ij")
        shifts = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
        boxes = shifts + _cell(config.anchor_sizes[level], stride, config)
        anchors.append(torch.from_numpy(boxes.reshape(-1, 4).astype(np.float32)))
    return anchors
