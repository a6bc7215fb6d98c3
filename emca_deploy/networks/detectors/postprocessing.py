"""From dense outputs to proposals, detections and masks. Every shape is fixed by the image's size and the configuration."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emca_deploy.networks.detectors.boxes import clip_boxes, decode, large_enough
from emca_deploy.networks.detectors.nms import Suppression
from emca_deploy.tasks.detector_config import DetectorConfig

__all__ = ["BoxDetections", "ClassMasks", "DenseDetections", "Detections", "Proposals"]

Detections = dict[str, Tensor]
"""The outputs: `num_detections` (N,) int32, `boxes` (N, D, 4), `scores` (N, D) falling, `labels` (N, D) int32, and for Mask R-CNN
`masks` (N, D, M, M). Rows from `num_detections` on are zero."""

INVALID = -1.0
"""Score of a candidate that does not take part; every other score is at least 0."""


def gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """Return the rows (N, B, C) of `values` (N, A, C) at `index` (N, B)."""
    return torch.gather(values, 1, index[..., None].expand(-1, -1, values.shape[2]))


def pad_rows(values: Tensor, rows: int, fill: float = 0.0) -> Tensor:
    """Return (N, rows, ...) with `fill` in the rows after those of `values`, (N, B) or (N, B, C)."""
    missing = rows - values.shape[1]
    return F.pad(values, (0, missing) if values.dim() == 2 else (0, 0, 0, missing), value=fill) if missing else values


class Proposals(nn.Module):
    """The RPN's best boxes of all levels, after suppression within each level."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.suppression = Suppression(config.rpn_nms_threshold, config.nms_rounds, float(config.plus_one))

    def forward(
        self, objectness: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], image_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return boxes (N, B, 4) and their scores (N, B), falling; a score of -1 marks a row without a proposal.

        Args:
            objectness: Logits (N, A_l) of each level.
            deltas: Deltas (N, A_l, 4) of each level.
            anchors: Anchors (A_l, 4) of each level.
            image_size: Height and width of the images.
        """
        config, one = self.config, float(self.config.plus_one)
        boxes_by_level, scores_by_level = [], []
        for logits, level_deltas, level_anchors in zip(objectness, deltas, anchors, strict=True):
            scores, index = torch.topk(logits, min(config.pre_nms, logits.shape[1]), dim=1)
            chosen = decode(gather_rows(level_deltas, index), level_anchors[index], config.rpn_weights, one)
            boxes = clip_boxes(chosen, image_size, one)
            scores = torch.where(large_enough(boxes, config.rpn_min_size), torch.sigmoid(scores), INVALID)
            boxes_by_level.append(boxes)
            scores_by_level.append(scores)
        most = max(scores.shape[1] for scores in scores_by_level)
        boxes = torch.stack([pad_rows(boxes, most) for boxes in boxes_by_level], dim=1)
        scores = torch.stack([pad_rows(scores, most, INVALID) for scores in scores_by_level], dim=1)
        valid = (scores >= 0).to(boxes.dtype)
        keep = self.suppression(boxes, valid)
        scores = torch.where(keep > 0.5, scores, INVALID).flatten(1)
        scores, index = torch.topk(scores, min(config.post_nms, scores.shape[1]), dim=1)
        return gather_rows(boxes.flatten(1, 2), index), scores


class _Selection(nn.Module):
    """The best detections after suppression within each class."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.suppression = Suppression(config.nms_threshold, config.nms_rounds, float(config.plus_one))

    def select(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """Suppress within each class, and return the best detections.

        Args:
            boxes: Boxes (N, B, 4).
            scores: Scores (N, B), falling.
            labels: Classes (N, B) int64.
        """
        config = self.config
        valid = (scores > config.score_threshold) & large_enough(boxes, config.box_min_size)
        keep = self.suppression(boxes, valid.to(boxes.dtype), labels)
        scores = torch.where(keep > 0.5, scores, INVALID)
        scores, index = torch.topk(scores, min(config.max_detections, scores.shape[1]), dim=1)
        boxes, labels = gather_rows(boxes, index), torch.gather(labels, 1, index)
        scores, boxes, labels = (pad_rows(rows, config.max_detections) for rows in (scores, boxes, labels))
        found = scores > 0
        return {
            "num_detections": found.to(torch.int32).sum(1, dtype=torch.int32),
            "boxes": torch.where(found[..., None], boxes, 0.0),
            "scores": torch.where(found, scores, 0.0),
            "labels": torch.where(found, labels, 0).to(torch.int32),
        }


class BoxDetections(_Selection):
    """The detections of the box head."""

    def forward(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, valid: Tensor, image_size: tuple[int, int]
    ) -> Detections:
        """Return the detections.

        Args:
            logits: Class logits (N, B, K + 1), background last.
            deltas: Deltas (N, B, 4 * K).
            proposals: Boxes (N, B, 4).
            valid: Whether a row has a proposal, (N, B) bool.
            image_size: Height and width of the images.
        """
        config, one = self.config, float(self.config.plus_one)
        count, rows, classes = logits.shape[0], logits.shape[1], config.num_classes
        probabilities = torch.softmax(logits, dim=-1)[..., :classes]
        flat = torch.where(valid[..., None], probabilities, INVALID).reshape(count, rows * classes)
        scores, index = torch.topk(flat, min(config.post_nms, rows * classes), dim=1)
        row = torch.div(index, classes, rounding_mode="floor")
        chosen = gather_rows(deltas.reshape(count, rows * classes, 4), index)
        boxes = clip_boxes(decode(chosen, gather_rows(proposals, row), config.box_weights, one), image_size, one)
        return self.select(boxes, scores, index - row * classes)


class DenseDetections(_Selection):
    """The detections of RetinaNet's head."""

    def forward(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], image_size: tuple[int, int]
    ) -> Detections:
        """Return the detections from the class logits (N, A_l, K) and the deltas (N, A_l, 4) of each level."""
        config, one = self.config, float(self.config.plus_one)
        boxes_by_level, scores_by_level, labels_by_level = [], [], []
        for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
            flat = level_logits.flatten(1)
            scores, index = torch.topk(flat, min(config.pre_nms, flat.shape[1]), dim=1)
            row = torch.div(index, config.num_classes, rounding_mode="floor")
            boxes = decode(gather_rows(level_deltas, row), level_anchors[row], config.box_weights, one)
            boxes_by_level.append(clip_boxes(boxes, image_size, one))
            scores_by_level.append(torch.sigmoid(scores))
            labels_by_level.append(index - row * config.num_classes)
        scores, boxes = torch.cat(scores_by_level, dim=1), torch.cat(boxes_by_level, dim=1)
        scores, index = torch.topk(scores, min(config.post_nms, scores.shape[1]), dim=1)
        labels = torch.gather(torch.cat(labels_by_level, dim=1), 1, index)
        return self.select(gather_rows(boxes, index), scores, labels)


class ClassMasks(nn.Module):
    """The mask of each detection's own class."""

    def forward(self, logits: Tensor, detections: Detections) -> Tensor:
        """Return probabilities (N, D, M, M) from logits (N, D, K, M, M); zero where there is no detection."""
        index = detections["labels"].to(torch.int64)[:, :, None, None, None]
        own = torch.gather(logits, 2, index.expand(-1, -1, 1, logits.shape[3], logits.shape[4])).squeeze(2)
        return torch.where((detections["scores"] > 0)[:, :, None, None], torch.sigmoid(own), 0.0)
