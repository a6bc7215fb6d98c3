"""Which anchor or proposal learns which object: matching by overlap, and sampling. Every step runs over the whole batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emca_deploy.networks.detectors.boxes import pairwise_iou

__all__ = ["Matches", "Truth", "match", "pad_targets", "sample"]


@dataclass(frozen=True)
class Truth:
    """The objects of a batch, padded to the same number G of at least one for each image.

    Attributes:
        boxes: Boxes (N, G, 4).
        labels: Classes (N, G) int64.
        valid: Whether a row has an object, (N, G) bool.
        masks: Masks (N, G, H, W) float of 0 and 1; None where there are none.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    masks: Tensor | None


@dataclass(frozen=True)
class Matches:
    """The object of each of A boxes.

    Attributes:
        index: Row of the object with the largest overlap, (N, A) int64.
        positive: Whether the box learns that object, (N, A) bool.
        negative: Whether the box learns that it has none, (N, A) bool.
    """

    index: Tensor
    positive: Tensor
    negative: Tensor


def pad_targets(targets: Sequence[dict[str, Tensor]]) -> Truth:
    """Return the targets of `Detector.losses` as one record of padded tensors."""
    most = max(1, *(len(target["labels"]) for target in targets))
    first = targets[0]["boxes"]
    boxes = first.new_zeros(len(targets), most, 4)
    labels = torch.zeros(len(targets), most, dtype=torch.int64, device=first.device)
    valid = torch.zeros(len(targets), most, dtype=torch.bool, device=first.device)
    masks = None
    if "masks" in targets[0]:
        masks = first.new_zeros(len(targets), most, *targets[0]["masks"].shape[1:])
    for row, target in enumerate(targets):
        count = len(target["labels"])
        boxes[row, :count], labels[row, :count], valid[row, :count] = target["boxes"], target["labels"], True
        if masks is not None:
            masks[row, :count] = target["masks"].to(masks.dtype)
    return Truth(boxes, labels, valid, masks)


def match(
    truth: Truth, boxes: Tensor, positive_from: float, negative_below: float, *, one: float = 0.0, each_object: bool = False
) -> Matches:
    """Match boxes (A, 4), or (N, A, 4), to the objects.

    Args:
        truth: Objects.
        boxes: Anchors or proposals.
        positive_from: Overlap from which a box learns its object.
        negative_below: Overlap below which a box learns that it has none.
        one: See `boxes`.
        each_object: Whether the boxes with the largest overlap of each object learn too, however small it is.
    """
    overlap = torch.where(truth.valid[:, :, None], pairwise_iou(truth.boxes, boxes, one), -1.0)
    best, index = overlap.max(dim=1)
    positive = best >= positive_from
    if each_object:
        largest = overlap.max(dim=2, keepdim=True).values
        positive = positive | ((overlap == largest) & (largest > 0)).any(dim=1)
    return Matches(index, positive, (best < negative_below) & ~positive)


def sample(candidates: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Choose at most `count` random candidates of each row.

    Args:
        candidates: Whether a box is a candidate, (N, A) bool.
        count: Largest number for each row.

    Returns:
        Positions (N, S) int64, and whether each is a candidate, (N, S) bool; S is `count`, or A where that is smaller.
    """
    keys = torch.where(candidates, torch.rand(candidates.shape, device=candidates.device), -1.0)
    keys, index = torch.topk(keys, min(count, candidates.shape[1]), dim=1)
    return index, keys >= 0
