"""Non-maximum suppression as arithmetic, with fixed shapes and no data-dependent operator."""

import torch
from torch import Tensor

from emca_deploy.networks.detectors.boxes import overlaps

__all__ = ["suppress"]


def suppress(
    boxes: Tensor, valid: Tensor, threshold: float, rounds: int, labels: Tensor | None = None, one: float = 0.0
) -> Tensor:
    """Return which boxes remain, (..., B) float of 0 and 1.

    Each round keeps the boxes that no kept box of the round before suppresses (Cluster-NMS: Zheng et al., 2021). The result is
    that of greedy suppression as soon as there are as many rounds as the longest chain of boxes that suppress one another.

    Args:
        boxes: Boxes (..., B, 4), the one with the highest score first.
        valid: Which of them take part, (..., B) float of 0 and 1.
        threshold: Intersection over union above which the lower score is suppressed.
        rounds: Number of rounds.
        labels: Classes (..., B); boxes of different classes do not suppress one another. None for one class.
        one: See `boxes`.
    """
    intersection, union = overlaps(boxes, boxes, one)
    suppresses = (intersection > threshold * union).to(boxes.dtype)
    if labels is not None:
        suppresses = suppresses * (labels[..., :, None] == labels[..., None, :]).to(boxes.dtype)
    count = boxes.shape[-2]
    before = torch.triu(torch.ones(count, count, dtype=boxes.dtype, device=boxes.device), diagonal=1)
    suppresses = suppresses * before  # a row suppresses the columns after it
    keep = valid
    for _ in range(rounds):
        keep = valid * (torch.matmul(keep[..., None, :], suppresses)[..., 0, :] < 0.5).to(boxes.dtype)
    return keep
