"""Small detectors with random weights that find something."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from small import small_networks

from emca_deploy.networks.registry import ARCHITECTURES, DETECTORS, Architecture, create_model
from emca_deploy.tasks.detector_config import DETECTOR_KINDS

SMALL = {"fpn_channels": 64, "pre_nms": 100, "post_nms": 60, "max_detections": 20}
RCNN = {"box_head_width": 64, "anchor_sizes": ((12.0,), (24.0,), (36.0,), (64.0,), (96.0,)), "roi_finest_scale": 16.0}


@contextmanager
def small_detectors() -> Iterator[None]:
    """Register the detectors over the small networks as well."""
    with small_networks():
        found = {
            name: Architecture(name, arch.family, arch.depth, None, kind)
            for arch in ARCHITECTURES.values()
            if arch.depth == 10
            for kind in DETECTOR_KINDS
            for name in (f"{kind}_{arch.name}_fpn",)
        }
        with patch.dict(DETECTORS, found):
            yield


def small_detector(kind: str, **options: Any) -> Any:
    """Return a detector of 3 classes over the small EMCA-ECA-ResNet, whose random weights give scores and boxes of all kinds."""
    torch.manual_seed(3)
    own = {} if kind == "retinanet" else RCNN
    with small_detectors():
        model = create_model(f"{kind}_emca_eca_resnet10_fpn", 3, **{**SMALL, **own, **options})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("scores.weight", "objectness.weight", "deltas.weight")):
                parameter.mul_(30 if kind == "retinanet" else 10)
            if name == "head.scores.bias":
                parameter.zero_()
    return model
