"""Non-maximum suppression as arithmetic, with fixed shapes and no data-dependent operator."""

import torch
from torch import Tensor, nn

from emca_deploy.networks.detectors.boxes import overlaps

__all__ = ["Suppression", "suppress"]


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
    suppresses, keep = _pairs(boxes, threshold, labels, one), valid
    for _ in range(rounds):
        keep = _round(keep, valid, suppresses)
    return keep


def _pairs(boxes: Tensor, threshold: float, labels: Tensor | None, one: float) -> Tensor:
    """Return whether a box (row) suppresses a later one (column) if it is kept, (..., B, B) float of 0 and 1."""
    intersection, union = overlaps(boxes, boxes, one)
    suppresses = (intersection > threshold * union).to(boxes.dtype)
    if labels is not None:
        suppresses = suppresses * (labels[..., :, None] == labels[..., None, :]).to(boxes.dtype)
    order = torch.arange(boxes.shape[-2], device=boxes.device)
    return suppresses * (order[:, None] < order).to(boxes.dtype)


def _round(keep: Tensor, valid: Tensor, suppresses: Tensor) -> Tensor:
    """Return the boxes (..., B) that no box of `keep` suppresses."""
    return valid * (torch.matmul(keep[..., None, :], suppresses)[..., 0, :] < 0.5).to(valid.dtype)


class Suppression(nn.Module):
    """`suppress` as a module, whose rounds an export sets.

    Args:
        threshold: Intersection over union above which the lower score is suppressed.
        rounds: Number of rounds.
        one: See `boxes`.
    """

    def __init__(self, threshold: float, rounds: int, one: float = 0.0) -> None:
        super().__init__()
        self.threshold, self.rounds, self.one = threshold, rounds, one

    def forward(self, boxes: Tensor, valid: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return which boxes remain; see `suppress`."""
        return suppress(boxes, valid, self.threshold, self.rounds, labels, self.one)

    def settle(self, boxes: Tensor, valid: Tensor, labels: Tensor | None = None) -> tuple[Tensor, int]:
        """Return the boxes that remain after as many rounds as change them, and the number of those rounds."""
        suppresses, keep = _pairs(boxes, self.threshold, labels, self.one), valid
        for rounds in range(boxes.shape[-2]):
            following = _round(keep, valid, suppresses)
            if torch.equal(following, keep):
                return keep, rounds
            keep = following
        return keep, boxes.shape[-2]
