"""Boxes as x1, y1, x2, y2 in pixels, in the last axis: coding relative to anchors, clipping and overlap.

`one` is 1 where a box reaches to the end of its last pixel (mmdetection 1.x), else 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from emca_deploy.tasks.detector_config import LARGEST_LOG

__all__ = ["area", "clip_boxes", "decode", "encode", "large_enough", "overlaps", "pairwise_iou"]


def _centres_and_sides(boxes: Tensor, one: float) -> tuple[Tensor, Tensor]:
    sides = boxes[..., 2:] - boxes[..., :2] + one
    return boxes[..., :2] + 0.5 * (sides - one), sides


def encode(boxes: Tensor, anchors: Tensor, weights: Sequence[float], one: float = 0.0) -> Tensor:
    """Return the deltas (..., 4) that `decode` turns into `boxes`."""
    centres, sides = _centres_and_sides(boxes, one)
    origins, scales = _centres_and_sides(anchors, one)
    factors = boxes.new_tensor(weights)
    return torch.cat([(centres - origins) / scales, torch.log(sides / scales)], dim=-1) * factors


def decode(deltas: Tensor, anchors: Tensor, weights: Sequence[float], one: float = 0.0) -> Tensor:
    """Return boxes (..., 4) from deltas and anchors of broadcastable shapes (..., 4)."""
    origins, scales = _centres_and_sides(anchors, one)
    x, y, width, height = weights
    shift = torch.cat([deltas[..., :1] / x, deltas[..., 1:2] / y], dim=-1)
    growth = torch.cat([deltas[..., 2:3] / width, deltas[..., 3:] / height], dim=-1)
    centres = origins + shift * scales
    half = 0.5 * (scales * torch.exp(growth.clamp(max=LARGEST_LOG)) - one)
    return torch.cat([centres - half, centres + half], dim=-1)


def clip_boxes(boxes: Tensor, image_size: tuple[int, int], one: float = 0.0) -> Tensor:
    """Return the boxes within an image of (height, width)."""
    height, width = image_size
    x = boxes[..., 0::2].clamp(0.0, float(width) - one)
    y = boxes[..., 1::2].clamp(0.0, float(height) - one)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def area(boxes: Tensor, one: float = 0.0) -> Tensor:
    """Return the areas (...) of boxes (..., 4)."""
    sides = boxes[..., 2:] - boxes[..., :2] + one
    return sides[..., 0] * sides[..., 1]


def large_enough(boxes: Tensor, smallest: float) -> Tensor:
    """Return whether both sides of each box are at least `smallest` pixels, (...) bool."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides[..., 0] >= smallest) & (sides[..., 1] >= smallest)


def overlaps(a: Tensor, b: Tensor, one: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the areas (..., A, B) of the intersections and of the unions of boxes (..., A, 4) and (..., B, 4)."""
    top_left = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    bottom_right = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    sides = (bottom_right - top_left + one).clamp(min=0.0)
    intersection = sides[..., 0] * sides[..., 1]
    return intersection, area(a, one)[..., :, None] + area(b, one)[..., None, :] - intersection


def pairwise_iou(a: Tensor, b: Tensor, one: float = 0.0) -> Tensor:
    """Return the intersection over union (..., A, B) of boxes (..., A, 4) and (..., B, 4); 0 where the union is empty."""
    intersection, union = overlaps(a, b, one)
    return intersection / union.clamp(min=1e-9)
