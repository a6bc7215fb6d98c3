"""Images, and what is in them."""

import pytest
import torch


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
