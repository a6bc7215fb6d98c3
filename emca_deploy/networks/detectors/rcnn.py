"""Faster R-CNN (Ren et al., 2015) and Mask R-CNN (He et al., 2017) over a feature pyramid."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emca_deploy.networks.detectors.anchors import level_anchors
from emca_deploy.networks.detectors.detector import Detector, level_shapes
from emca_deploy.networks.detectors.fpn import FeaturePyramid
from emca_deploy.networks.detectors.losses import box_losses, mask_loss, rpn_losses, sample_regions
from emca_deploy.networks.detectors.mask_head import MaskHead
from emca_deploy.networks.detectors.matching import pad_targets
from emca_deploy.networks.detectors.postprocessing import BoxDetections, ClassMasks, Detections, Proposals
from emca_deploy.networks.detectors.roi import BoxHead, Canvas, RoiAlign
from emca_deploy.networks.detectors.rpn import RpnHead
from emca_deploy.tasks.detector_config import ROI_LEVELS, RPN_LEVELS, DetectorConfig

__all__ = ["FasterRcnn", "MaskRcnn"]

FIRST_STRIDE = 4


class _Heads(nn.Module):
    """The heads that read crops of regions: `box`, and `mask` in Mask R-CNN."""

    def __init__(self, config: DetectorConfig, masks: bool) -> None:
        super().__init__()
        self.box = BoxHead(config)
        if masks:
            self.mask = MaskHead(config)


class _Post(nn.Module):
    """The steps without weights, from dense outputs to detections."""

    def __init__(self, config: DetectorConfig, masks: bool) -> None:
        super().__init__()
        self.proposals = Proposals(config)
        self.canvas = Canvas()
        self.crop_boxes = RoiAlign(config.box_bins, config)
        self.detections = BoxDetections(config)
        if masks:
            self.crop_masks = RoiAlign(config.mask_bins, config)
            self.masks = ClassMasks()


class FasterRcnn(Detector):
    """Faster R-CNN over a backbone, from images (N, 3, H, W) to detections; H and W are multiples of 32."""

    has_masks = False

    def __init__(self, backbone: nn.Module, widths: Sequence[int], config: DetectorConfig) -> None:
        super().__init__(backbone, config)
        self.fpn = FeaturePyramid(widths, config.fpn_channels)
        self.rpn = RpnHead(config.fpn_channels, config.anchors_per_place)
        self.roi = _Heads(config, self.has_masks)
        self.post = _Post(config, self.has_masks)

    def dense(self, images: Tensor) -> dict[str, Tensor]:
        """Return the dense outputs by name.

        They are the levels `p2` to `p5` (N, C, H_l, W_l), and for p2 to p6 the logits `objectness_p2` (N, A_l) and the deltas
        `deltas_p2` (N, A_l, 4).
        """
        levels = self.fpn(self.backbone(images))
        objectness, deltas = self.rpn(levels)
        return {
            **dict(zip(RPN_LEVELS[:ROI_LEVELS], levels, strict=False)),
            **{f"objectness_{name}": logits for name, logits in zip(RPN_LEVELS, objectness, strict=True)},
            **{f"deltas_{name}": values for name, values in zip(RPN_LEVELS, deltas, strict=True)},
        }

    def anchors(self, image_size: tuple[int, int]) -> list[Tensor]:
        """Return the anchors (A_l, 4) of the levels P2 to P6."""
        return level_anchors(level_shapes(image_size, FIRST_STRIDE), image_size, FIRST_STRIDE, self.config)

    def propose(self, dense: dict[str, Tensor], image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the proposals (N, B, 4) and their scores (N, B); see `Proposals`."""
        objectness = [dense[f"objectness_{name}"] for name in RPN_LEVELS]
        deltas = [dense[f"deltas_{name}"] for name in RPN_LEVELS]
        boxes, scores = self.post.proposals(objectness, deltas, self.anchors(image_size), image_size)
        return boxes, scores

    def forward(self, images: Tensor) -> Detections:
        """Return the detections of images (N, 3, H, W), already normalized."""
        image_size = (images.shape[2], images.shape[3])
        return self.detect(self.dense(images), image_size)

    def detect(self, dense: dict[str, Tensor], image_size: tuple[int, int]) -> Detections:
        """Return the detections from the dense outputs of images of this height and width."""
        shapes = level_shapes(image_size, FIRST_STRIDE)[:ROI_LEVELS]
        canvas = self.post.canvas([dense[name] for name in RPN_LEVELS[:ROI_LEVELS]])
        proposals, scores = self.propose(dense, image_size)
        crops = self.post.crop_boxes(canvas, proposals, shapes)
        logits, deltas = self.roi.box(crops.flatten(0, 1))
        rows = (proposals.shape[0], proposals.shape[1], -1)
        found: Detections = self.post.detections(logits.reshape(rows), deltas.reshape(rows), proposals, scores >= 0, image_size)
        if self.has_masks:
            crops = self.post.crop_masks(canvas, found["boxes"], shapes)
            masks = self.roi.mask(crops.flatten(0, 1))
            found["masks"] = self.post.masks(masks.reshape(*crops.shape[:2], *masks.shape[1:]), found)
        return found

    def losses(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the losses of a batch by name; see `Detector.losses`."""
        image_size = (images.shape[2], images.shape[3])
        dense, truth, config = self.dense(images), pad_targets(targets), self.config
        objectness = torch.cat([dense[f"objectness_{name}"] for name in RPN_LEVELS], dim=1)
        deltas = torch.cat([dense[f"deltas_{name}"] for name in RPN_LEVELS], dim=1)
        anchors = torch.cat(self.anchors(image_size)).to(images.device)
        found = rpn_losses(objectness.float(), deltas.float(), anchors, truth, config, self.sampling)
        with torch.no_grad():
            proposals, scores = self.propose({name: values.float() for name, values in dense.items()}, image_size)
            regions = sample_regions(proposals, scores >= 0, truth, config, self.sampling)
        canvas = self.post.canvas([dense[name] for name in RPN_LEVELS[:ROI_LEVELS]]).float()
        shapes = level_shapes(image_size, FIRST_STRIDE)[:ROI_LEVELS]
        crops = self.post.crop_boxes(canvas, regions.boxes, shapes)
        logits, box_deltas = self.roi.box(crops.flatten(0, 1))
        rows = (*regions.labels.shape, -1)
        found |= box_losses(logits.reshape(rows).float(), box_deltas.reshape(rows).float(), regions, truth, config)
        if self.has_masks:
            positive = regions.positive
            crops = self.post.crop_masks(canvas, regions.boxes[:, :positive], shapes)[regions.chosen[:, :positive]]
            found["mask"] = mask_loss(self.roi.mask(crops).float(), regions, truth, config)
        return found


class MaskRcnn(FasterRcnn):
    """Mask R-CNN: Faster R-CNN with a mask for each detection."""

    has_masks = True
