"""The losses of detectors, over the whole batch at once."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from emca_deploy.networks.detectors.boxes import encode
from emca_deploy.networks.detectors.matching import Truth, match, sample
from emca_deploy.networks.detectors.postprocessing import gather_rows
from emca_deploy.networks.detectors.roi import sample_on_grid
from emca_deploy.tasks.detector_config import DetectorConfig

__all__ = ["Regions", "Sampling", "box_losses", "mask_loss", "retinanet_losses", "rpn_losses", "sample_regions"]

SMOOTH = 1 / 9
"""Error from which the smooth L1 loss is linear (torchvision's value)."""

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
"""Weight of positive anchors, and exponent of the focal loss (Lin et al., 2017)."""


@dataclass(frozen=True)
class Sampling:
    """Numbers of boxes of each image that the losses use: at most so many positive ones, and so many negative ones."""

    rpn_positive: int = 128
    rpn_negative: int = 128
    roi_positive: int = 128
    roi_negative: int = 384


@dataclass(frozen=True)
class Regions:
    """The regions that the box head learns from: P positive ones of each image, then the negative ones.

    Attributes:
        boxes: Boxes (N, S, 4).
        objects: Row of each region's object, (N, S) int64.
        labels: Classes (N, S) int64; the number of classes for background.
        chosen: Whether a row has a region, (N, S) bool.
        positive: Number P of rows for positive regions.
    """

    boxes: Tensor
    objects: Tensor
    labels: Tensor
    chosen: Tensor
    positive: int


def _rows(truth: Truth, index: Tensor) -> Tensor:
    """Return the boxes (N, A, 4) of the objects at `index` (N, A)."""
    return gather_rows(truth.boxes, index)


def rpn_losses(
    objectness: Tensor, deltas: Tensor, anchors: Tensor, truth: Truth, config: DetectorConfig, plan: Sampling
) -> dict[str, Tensor]:
    """Return the losses of logits (N, A) and deltas (N, A, 4) for anchors (A, 4)."""
    one = float(config.plus_one)
    matches = match(truth, anchors, 0.7, 0.3, one=one, each_object=True)
    positive, is_positive = sample(matches.positive, plan.rpn_positive)
    negative, is_negative = sample(matches.negative, plan.rpn_negative)
    index, chosen = torch.cat([positive, negative], 1), torch.cat([is_positive, is_negative], 1)
    wanted = torch.cat([is_positive, torch.zeros_like(is_negative)], 1).to(objectness.dtype)
    count = chosen.sum().clamp(min=1)
    errors = F.binary_cross_entropy_with_logits(torch.gather(objectness, 1, index), wanted, reduction="none")
    goal = encode(_rows(truth, torch.gather(matches.index, 1, positive)), anchors[positive], config.rpn_weights, one)
    offsets = _smooth(gather_rows(deltas, positive), goal, is_positive)
    return {"rpn_objectness": (errors * chosen).sum() / count, "rpn_box": offsets / count}


def _smooth(found: Tensor, goal: Tensor, chosen: Tensor) -> Tensor:
    """Return the summed smooth L1 loss of the chosen rows; the other rows' goals may be infinite."""
    goal = torch.where(chosen[..., None], goal, found.detach())
    return F.smooth_l1_loss(found, goal, beta=SMOOTH, reduction="sum")


def sample_regions(proposals: Tensor, valid: Tensor, truth: Truth, config: DetectorConfig, plan: Sampling) -> Regions:
    """Choose regions from the proposals (N, B, 4), of which `valid` (N, B) bool take part, and from the objects' own boxes."""
    boxes = torch.cat([proposals, truth.boxes], dim=1)
    takes_part = torch.cat([valid, truth.valid], dim=1)
    matches = match(truth, boxes, 0.5, 0.5, one=float(config.plus_one))
    positive, is_positive = sample(matches.positive & takes_part, plan.roi_positive)
    negative, is_negative = sample(matches.negative & takes_part, plan.roi_negative)
    index = torch.cat([positive, negative], 1)
    objects = torch.gather(matches.index, 1, index)
    labels = torch.gather(truth.labels, 1, objects)
    labels[:, positive.shape[1] :] = config.num_classes
    return Regions(gather_rows(boxes, index), objects, labels, torch.cat([is_positive, is_negative], 1), positive.shape[1])


def box_losses(logits: Tensor, deltas: Tensor, regions: Regions, truth: Truth, config: DetectorConfig) -> dict[str, Tensor]:
    """Return the losses of the box head's logits (N, S, K + 1) and deltas (N, S, 4 * K)."""
    count, chosen = regions.chosen.sum().clamp(min=1), regions.chosen
    errors = F.cross_entropy(logits.transpose(1, 2), regions.labels, reduction="none")
    rows = regions.positive
    own = regions.labels[:, :rows, None, None].expand(-1, -1, 1, 4)
    by_class = deltas[:, :rows].reshape(*deltas.shape[:1], rows, config.num_classes, 4)
    found = torch.gather(by_class, 2, own).squeeze(2)
    boxes = _rows(truth, regions.objects[:, :rows])
    goal = encode(boxes, regions.boxes[:, :rows], config.box_weights, float(config.plus_one))
    return {"box_class": (errors * chosen).sum() / count, "box_box": _smooth(found, goal, chosen[:, :rows]) / count}


def mask_loss(logits: Tensor, regions: Regions, truth: Truth, config: DetectorConfig) -> Tensor:
    """Return the loss of the mask logits (M, K, S, S) of the M positive regions that were chosen, in order."""
    rows = regions.positive
    chosen = regions.chosen[:, :rows]
    if truth.masks is None or logits.shape[0] == 0:
        return logits.sum() * 0.0
    batch = torch.arange(len(chosen), device=chosen.device)[:, None].expand_as(chosen)[chosen]
    masks = truth.masks[batch, regions.objects[:, :rows][chosen]]
    boxes = regions.boxes[:, :rows][chosen]
    goal = sample_on_grid(masks[:, None], boxes[:, None], config.mask_size, 2, config.roi_aligned)[:, 0, 0]
    labels = regions.labels[:, :rows][chosen]
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    return F.binary_cross_entropy_with_logits(own, goal)


def retinanet_losses(logits: Tensor, deltas: Tensor, anchors: Tensor, truth: Truth, config: DetectorConfig) -> dict[str, Tensor]:
    """Return the focal loss of logits (N, A, K) and the L1 loss of deltas (N, A, 4) for anchors (A, 4)."""
    one = float(config.plus_one)
    matches = match(truth, anchors, 0.5, 0.4, one=one, each_object=True)
    count = matches.positive.sum().clamp(min=1)
    labels = torch.gather(truth.labels, 1, matches.index)
    wanted = F.one_hot(labels, config.num_classes).to(logits.dtype) * matches.positive[..., None]
    errors = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    scores = torch.sigmoid(logits)
    missed = scores * (1 - wanted) + (1 - scores) * wanted
    weight = FOCAL_ALPHA * wanted + (1 - FOCAL_ALPHA) * (1 - wanted)
    takes_part = (matches.positive | matches.negative)[..., None]
    focal = (errors * weight * missed**FOCAL_GAMMA * takes_part).sum() / count
    image, place = torch.nonzero(matches.positive, as_tuple=True)
    goal = encode(truth.boxes[image, matches.index[image, place]], anchors[place], config.box_weights, one)
    return {"class": focal, "box": F.l1_loss(deltas[image, place], goal, reduction="sum") / count}
