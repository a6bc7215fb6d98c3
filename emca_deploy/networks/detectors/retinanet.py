"""RetinaNet (Lin et al., 2017): class logits and deltas for each anchor of five levels."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emca_deploy.networks.detectors.anchors import level_anchors
from emca_deploy.networks.detectors.detector import Detector, level_shapes
from emca_deploy.networks.detectors.fpn import FeaturePyramid
from emca_deploy.networks.detectors.losses import retinanet_losses
from emca_deploy.networks.detectors.matching import pad_targets
from emca_deploy.networks.detectors.postprocessing import DenseDetections, Detections
from emca_deploy.networks.detectors.rpn import flatten_level, init_convolutions
from emca_deploy.tasks.detector_config import RETINANET_LEVELS, DetectorConfig

__all__ = ["RetinaNet"]

FIRST_STRIDE = 8
CONVOLUTIONS = 4
PRIOR = 0.01
"""Score of every anchor before training, so that the many negative ones do not outweigh the others."""


class RetinaHead(nn.Module):
    """Two towers of four 3x3 convolutions, shared by all levels, for class logits and for deltas."""

    def __init__(self, channels: int, anchors: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(CONVOLUTIONS))
        self.box_convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(CONVOLUTIONS))
        self.scores = nn.Conv2d(channels, anchors * num_classes, 3, padding=1)
        self.deltas = nn.Conv2d(channels, anchors * 4, 3, padding=1)
        init_convolutions(self)
        if not self.scores.weight.is_meta:
            nn.init.constant_(self.scores.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]  # it has a bias

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the class logits (N, A_l, K) and the deltas (N, A_l, 4) of each level."""
        logits, deltas = [], []
        for level in levels:
            x = y = level
            for class_conv, box_conv in zip(self.class_convs, self.box_convs, strict=True):
                x, y = F.relu(class_conv(x)), F.relu(box_conv(y))
            logits.append(flatten_level(self.scores(x), self.num_classes))
            deltas.append(flatten_level(self.deltas(y), 4))
        return logits, deltas


class RetinaNet(Detector):
    """RetinaNet over a backbone, from images (N, 3, H, W) to detections; H and W are multiples of 32."""

    has_regions = False

    def __init__(self, backbone: nn.Module, widths: Sequence[int], config: DetectorConfig) -> None:
        super().__init__(backbone, config)
        self.fpn = FeaturePyramid(widths[1:], config.fpn_channels, config.p6_from, config.relu_before_p7)
        self.head = RetinaHead(config.fpn_channels, config.anchors_per_place, config.num_classes)
        self.post = DenseDetections(config)

    def dense(self, images: Tensor) -> dict[str, Tensor]:
        """Return the dense outputs by name: for p3 to p7, `logits_p3` (N, A_l, K) and `deltas_p3` (N, A_l, 4)."""
        logits, deltas = self.head(self.fpn(self.backbone(images)[1:]))
        return {
            **{f"logits_{name}": values for name, values in zip(RETINANET_LEVELS, logits, strict=True)},
            **{f"deltas_{name}": values for name, values in zip(RETINANET_LEVELS, deltas, strict=True)},
        }

    def anchors(self, image_size: tuple[int, int]) -> list[Tensor]:
        """Return the anchors (A_l, 4) of the levels P3 to P7."""
        return level_anchors(level_shapes(image_size, FIRST_STRIDE), image_size, FIRST_STRIDE, self.config)

    def forward(self, images: Tensor) -> Detections:
        """Return the detections of images (N, 3, H, W), already normalized."""
        image_size = (images.shape[2], images.shape[3])
        return self.detect(self.dense(images), image_size)

    def detect(self, dense: dict[str, Tensor], image_size: tuple[int, int]) -> Detections:
        """Return the detections from the dense outputs of images of this height and width."""
        logits = [dense[f"logits_{name}"] for name in RETINANET_LEVELS]
        deltas = [dense[f"deltas_{name}"] for name in RETINANET_LEVELS]
        found: Detections = self.post(logits, deltas, self.anchors(image_size), image_size)
        return found

    def losses(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the losses of a batch by name; see `Detector.losses`."""
        dense = self.dense(images)
        logits = torch.cat([dense[f"logits_{name}"] for name in RETINANET_LEVELS], dim=1)
        deltas = torch.cat([dense[f"deltas_{name}"] for name in RETINANET_LEVELS], dim=1)
        anchors = torch.cat(self.anchors((images.shape[2], images.shape[3]))).to(images.device)
        return retinanet_losses(logits.float(), deltas.float(), anchors, pad_targets(targets), self.config)
