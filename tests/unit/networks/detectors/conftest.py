"""Small detectors with weights that find something."""

from typing import Any

import pytest
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


@pytest.fixture(scope="package")
def images() -> torch.Tensor:
    """Return two images (2, 3, 96, 128)."""
    return torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(5)) * 4 - 2


@pytest.fixture(scope="package")
def targets() -> list[dict[str, torch.Tensor]]:
    """Return what is in the two images: two objects, and none."""
    masks = torch.zeros(2, 96, 128, dtype=torch.uint8)
    masks[0, 10:50, 20:60], masks[1, 40:90, 70:120] = 1, 1
    boxes = torch.tensor([[20.0, 10.0, 60.0, 50.0], [70.0, 40.0, 120.0, 90.0]])
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": masks[:0]}
    return [{"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}, nothing]
