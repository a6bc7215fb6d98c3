"""Crops of regions against a plain reading of RoiAlign, and the canvas against one map for each level."""

import numpy as np
import pytest
import torch

from emca_deploy.errors import InputError
from emca_deploy.networks.detectors.roi import Canvas, RoiAlign, sample_on_grid
from emca_deploy.tasks.detector_config import DetectorConfig
from zoo.detections import crops, level_of, roi_align

BOXES = np.array(
    [[0, 0, 96, 64], [3.3, 4.7, 20.1, 30.9], [50, 10, 95.9, 63.5], [0, 0, 5, 64], [88, 60, 96, 64], [10, 10, 40, 26]], np.float32
)
"""Boxes at all edges of an image of 64 x 96 pixels, of sizes for all levels."""


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_the_grid_gives_the_samples_of_roi_align(aligned, ratio):
    x = np.random.default_rng(0).normal(size=(3, 40, 50)).astype(np.float32)
    boxes = np.array([[2, 3, 30, 20], [5.5, 6.25, 49, 39], [10, 10, 10.4, 10.2]], np.float32)
    found = sample_on_grid(torch.from_numpy(x)[None], torch.from_numpy(boxes)[None], 7, ratio, aligned)[0]
    expected = np.array([roi_align(x, box, 1.0, 7, ratio, aligned) for box in boxes])
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def levels(seed: int, width: int = 96) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {f"p{n}": random.normal(size=(4, 64 // 2**n, width // 2**n)).astype(np.float32) for n in range(2, 6)}


@pytest.mark.parametrize("aligned", [True, False])
def test_crops_from_the_canvas_are_those_from_each_level(aligned):
    config = DetectorConfig(3, roi_aligned=aligned, roi_finest_scale=16.0)
    batch = [levels(0), levels(1)]
    maps = [torch.from_numpy(np.stack([each[f"p{n}"] for each in batch])) for n in range(2, 6)]
    boxes = torch.from_numpy(np.stack([BOXES, BOXES[::-1].copy()]))
    found = RoiAlign(7, config)(Canvas()(maps), boxes, [tuple(level.shape[2:]) for level in maps])
    for image in range(2):
        np.testing.assert_allclose(found[image].numpy(), crops(batch[image], boxes[image].numpy(), 7, config), atol=2e-5)


@pytest.mark.parametrize("width", [64, 96, 320])
def test_the_canvas_is_as_wide_as_the_wider_of_its_rows(width):
    """The coarser levels, with three repeated pixels each, lie in one row below the finest one."""
    maps = [torch.from_numpy(level)[None] for level in levels(0, width).values()]
    canvas = Canvas()(maps)
    row = width // 8 + width // 16 + width // 32 + 9
    assert canvas.shape[2:] == (16 + 3 + 8 + 3, max(width // 4 + 3, row))
    assert torch.equal(canvas[:, :, 1:17, 1 : width // 4 + 1], maps[0])
    assert torch.equal(canvas[:, :, 20:28, 1 : width // 8 + 1], maps[1])


def test_the_boxes_are_of_all_levels():
    assert {level_of(box, 16.0) for box in BOXES} == {0, 1, 2}
    assert level_of(BOXES[0] * 2, 16.0) == 3


def test_gradients_reach_every_level():
    maps = [torch.ones(1, 2, 64 // 2**n, 96 // 2**n, requires_grad=True) for n in range(2, 6)]
    config = DetectorConfig(3, roi_finest_scale=8.0)
    boxes = torch.from_numpy(BOXES)[None]
    RoiAlign(7, config)(Canvas()(maps), boxes, [tuple(level.shape[2:]) for level in maps]).sum().backward()
    assert all(level.grad is not None and bool(level.grad.any()) for level in maps)


def test_an_adaptive_number_of_samples_is_refused():
    with pytest.raises(InputError):
        sample_on_grid(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4), 7, 0, True)
