"""Builds a detector from its kind, its backbone and its configuration."""

from dataclasses import replace
from typing import Any

from emca_deploy.errors import InputError
from emca_deploy.networks.detectors.detector import Detector
from emca_deploy.networks.detectors.rcnn import FasterRcnn, MaskRcnn
from emca_deploy.networks.detectors.retinanet import RetinaNet
from emca_deploy.networks.pkcam import PkcamBackbone
from emca_deploy.networks.resnet import ResNetBackbone
from emca_deploy.tasks.detector_config import DetectorConfig, DetectorKind, default_config

__all__ = ["build_detector", "configure"]

_CLASSES: dict[DetectorKind, type[FasterRcnn] | type[RetinaNet]] = {
    "retinanet": RetinaNet, "faster_rcnn": FasterRcnn, "mask_rcnn": MaskRcnn,
}  # fmt: skip


def build_detector(kind: DetectorKind, backbone: ResNetBackbone | PkcamBackbone, config: DetectorConfig) -> Detector:
    """Return a detector with fresh weights around `backbone`, in training mode."""
    return _CLASSES[kind](backbone, backbone.stage_channels, config).train()


def configure(kind: DetectorKind, num_classes: int, options: dict[str, Any]) -> DetectorConfig:
    """Return the default configuration with `options` in place of its fields.

    Raises:
        InputError: no detector has these values.
    """
    config = replace(default_config(kind, num_classes), **options)
    if wrong := config.contradiction():
        raise InputError(f"the detector's configuration: {wrong}", "change that option, or leave it out")
    return config
