"""Non-maximum suppression as arithmetic, with fixed shapes and no data-dependent operator."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from emca_deploy.networks.detectors.boxes import area

__all__ = ["BLOCK", "Suppression", "suppress"]

BLOCK = 256
"""Boxes whose pairs are compared at a time. Rounds read a block's matrix of pairs often, so it has to fit into a cache."""


def suppress(
    boxes: Tensor, valid: Tensor, threshold: float, rounds: int, labels: Tensor | None = None, one: float = 0.0
) -> Tensor:
    """Return which boxes remain, (..., B) float of 0 and 1.

    The boxes of a block are settled in rounds: each round keeps the boxes that no kept box of the round before suppresses
    (Cluster-NMS: Zheng et al., 2021). Then the kept boxes of the block suppress those of later blocks, at once. The result is
    that of greedy suppression as soon as there are as many rounds as the longest chain of boxes of one block that suppress one
    another.

    Args:
        boxes: Boxes (..., B, 4), the one with the highest score first.
        valid: Which of them take part, (..., B) float of 0 and 1.
        threshold: Intersection over union above which the lower score is suppressed.
        rounds: Number of rounds in each block.
        labels: Classes (..., B); boxes of different classes do not suppress one another. None for one class.
        one: See `boxes`.
    """

    def repeat(valid: Tensor, suppresses: Tensor) -> Tensor:
        keep = valid
        for _ in range(rounds):
            keep = _unsuppressed(keep, suppresses, valid)
        return keep

    return _by_blocks(boxes, valid, threshold, labels, one, repeat)


def _by_blocks(
    boxes: Tensor, valid: Tensor, threshold: float, labels: Tensor | None, one: float, settle: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return the boxes that remain, (..., B); `settle` returns those of a block (..., 1, b) from its matrix of pairs."""
    parts = [boxes, (threshold * area(boxes, one))[..., None]]
    if labels is not None:
        parts.append(labels.to(boxes.dtype)[..., None])
    table = torch.cat(parts, dim=-1)
    planes = table.shape[-1]
    columns, remaining, kept = table.transpose(-2, -1), valid[..., None, :], []
    for start in range(0, boxes.shape[-2], BLOCK):
        rows = table[..., start : start + BLOCK, :].chunk(planes, dim=-1)
        size = rows[0].shape[-2]
        suppresses = _pairs(rows, columns[..., start : start + size].chunk(planes, dim=-2), threshold, one)
        earlier = torch.ones(size, size, dtype=boxes.dtype, device=boxes.device).triu(1)
        kept.append(settle(remaining[..., :size], suppresses * earlier))
        if size < remaining.shape[-1]:
            suppresses = _pairs(rows, columns[..., start + size :].chunk(planes, dim=-2), threshold, one)
            remaining = _unsuppressed(kept[-1], suppresses, remaining[..., size:])
    return torch.cat(kept, dim=-1)[..., 0, :]


def _pairs(rows: Sequence[Tensor], columns: Sequence[Tensor], threshold: float, one: float) -> Tensor:
    """Return whether a row's box and a column's overlap by more than `threshold`, (..., A, B) float of 0 and 1.

    Each plane of numbers is a tensor of its own, (..., A, 1) and (..., 1, B), and nothing is divided: OpenVINO computes all of it
    in one pass. They are x1, y1, x2, y2, the area times the threshold, and the class if there are classes.
    """
    width = torch.minimum(rows[2], columns[2]) - torch.maximum(rows[0], columns[0])
    height = torch.minimum(rows[3], columns[3]) - torch.maximum(rows[1], columns[1])
    shared = (width + one).relu() * (height + one) if one else width.relu() * height
    overlap = shared * (1 + threshold) > rows[4] + columns[4]  # the intersection exceeds the threshold times the union
    return (overlap & (rows[5] == columns[5]) if len(rows) > 5 else overlap).to(shared.dtype)


def _unsuppressed(keep: Tensor, suppresses: Tensor, valid: Tensor) -> Tensor:
    """Return those of the boxes `valid` (..., 1, B) that no box of `keep` (..., 1, A) suppresses."""
    return torch.where(torch.matmul(keep, suppresses) < 0.5, valid, 0.0)


class Suppression(nn.Module):
    """`suppress` as a module, whose rounds an export sets.

    Args:
        threshold: Intersection over union above which the lower score is suppressed.
        rounds: Number of rounds in each block.
        one: See `boxes`.
    """

    def __init__(self, threshold: float, rounds: int, one: float = 0.0) -> None:
        super().__init__()
        self.threshold, self.rounds, self.one = threshold, rounds, one

    def forward(self, boxes: Tensor, valid: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return which boxes remain; see `suppress`."""
        return suppress(boxes, valid, self.threshold, self.rounds, labels, self.one)

    def settle(self, boxes: Tensor, valid: Tensor, labels: Tensor | None = None) -> tuple[Tensor, int]:
        """Return the boxes that remain after as many rounds as change them, and the number of those rounds in any block."""
        needed = 0

        def until_settled(valid: Tensor, suppresses: Tensor) -> Tensor:
            nonlocal needed
            keep = valid
            for rounds in range(valid.shape[-1] + 1):
                following = _unsuppressed(keep, suppresses, valid)
                if torch.equal(following, keep):
                    break
                keep, needed = following, max(needed, rounds + 1)
            return keep

        keep = _by_blocks(boxes, valid, self.threshold, labels, self.one, until_settled)
        return keep, needed
