"""Small detectors with random weights that find something."""

from typing import Any

import torch

from emca_deploy.networks.registry import create_model

SMALL = {"fpn_channels": 64, "pre_nms": 100, "post_nms": 60, "max_detections": 20}
RCNN = {"box_head_width": 64, "anchor_sizes": ((12.0,), (24.0,), (36.0,), (64.0,), (96.0,)), "roi_finest_scale": 16.0}


def small_detector(kind: str, **options: Any) -> Any:
    """Return a detector of 3 classes over EMCA-ECA-ResNet-18, whose random weights give scores and boxes of all kinds."""
    torch.manual_seed(3)
    own = {} if kind == "retinanet" else RCNN
    model = create_model(f"{kind}_emca_eca_resnet18_fpn", 3, **{**SMALL, **own, **options})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("scores.weight", "objectness.weight", "deltas.weight")):
                parameter.mul_(30 if kind == "retinanet" else 10)
            if name == "head.scores.bias":
                parameter.zero_()
    return model
