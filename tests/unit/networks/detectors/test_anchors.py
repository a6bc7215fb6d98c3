"""Anchors against the values that torchvision and mmdetection give."""

from dataclasses import replace

import pytest
import torch

from emca_deploy.networks.detectors.anchors import level_anchors
from emca_deploy.tasks.detector_config import default_config

SHAPES = [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]


def anchors(**changes):
    return level_anchors(SHAPES, (96, 128), 4, replace(default_config("faster_rcnn", 3), **changes))


def test_there_is_one_for_each_place_size_and_ratio():
    found = level_anchors(SHAPES, (96, 128), 4, default_config("retinanet", 3))
    assert [tuple(level.shape) for level in found] == [(height * width * 9, 4) for height, width in SHAPES]


def test_the_places_follow_the_rows():
    level = anchors(anchor_ratios=(1.0,))[0].reshape(24, 32, 4)
    assert level[2, 5].tolist() == [5 * 4 - 16, 2 * 4 - 16, 5 * 4 + 16, 2 * 4 + 16]


def test_a_ratio_is_height_by_width_and_keeps_the_area():
    wide, square, high = anchors()[0][:3]
    for box, ratio in ((wide, 0.5), (square, 1.0), (high, 2.0)):
        width, height = box[2:] - box[:2]
        assert float(height / width) == pytest.approx(ratio)
        assert float(width * height) == pytest.approx(32 * 32, rel=1e-5)


def test_torchvision_rounds_corners():
    """The values of AnchorGenerator(((32,),), ((0.5, 1.0, 2.0),)).generate_anchors."""
    assert anchors(anchor_rounding="nearest")[0][:3].tolist() == [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]


def test_mmdetection_1_has_pixels_as_corners():
    """The values of its AnchorGenerator(16, [8], [0.5, 1, 2]).base_anchors."""
    found = anchors(anchor_sizes=((8.0,), (16.0,), (128.0,), (1.0,), (1.0,)), anchor_rounding="legacy")[2][:3]
    assert found.tolist() == [[-83, -37, 98, 52], [-56, -56, 71, 71], [-37, -83, 52, 98]]


def test_torchvision_divides_the_image_by_the_level():
    nominal, divided = anchors()[4], anchors(anchor_strides="divided")[4]
    assert (nominal[-1] - nominal[0])[:2].tolist() != (divided[-1] - divided[0])[:2].tolist()
    torch.testing.assert_close(divided[-3] - divided[0], torch.tensor([64.0, 48.0, 64.0, 48.0]))
    torch.testing.assert_close(nominal[-3] - nominal[0], torch.tensor([64.0, 64.0, 64.0, 64.0]))


def test_the_centre_is_a_share_of_the_stride():
    corner, middle = anchors()[1], anchors(anchor_centre=0.5)[1]
    torch.testing.assert_close(middle - corner, torch.full_like(corner, 4.0))
