"""Coding, clipping and overlap of boxes, against plain readings of the formulas."""

import math

import numpy as np
import pytest
import torch

from emca_deploy.networks.detectors.boxes import clip_boxes, decode, encode, large_enough, pairwise_iou

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def some_boxes(count: int, seed: int = 0, size: float = 90.0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    start = random.uniform(0, size / 2, (count, 2))
    return torch.tensor(np.concatenate([start, start + random.uniform(2, size / 2, (count, 2))], 1), dtype=torch.float32)


@pytest.mark.parametrize("one", [0.0, 1.0])
def test_decoding_reverses_encoding(one):
    boxes, anchors = some_boxes(40), some_boxes(40, 1)
    torch.testing.assert_close(decode(encode(boxes, anchors, WEIGHTS, one), anchors, WEIGHTS, one), boxes, atol=1e-4, rtol=0)


def test_decoding_follows_the_formula():
    deltas, anchor = torch.tensor([[1.0, -2.0, 0.5, -0.5]]), torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    x, y = 20 + 0.1 * 20, 40 - 0.2 * 40
    width, height = 20 * math.exp(0.1), 40 * math.exp(-0.1)
    expected = torch.tensor([[x - width / 2, y - height / 2, x + width / 2, y + height / 2]])
    torch.testing.assert_close(decode(deltas, anchor, WEIGHTS), expected)


def test_decoding_with_pixels_that_count_follows_mmdetection_1():
    """Its delta2bbox: a side is x2 - x1 + 1, and corners are moved by half a pixel towards each other."""
    deltas, anchor = torch.tensor([[0.1, 0.2, 0.3, -0.4]]), torch.tensor([[10.0, 20.0, 29.0, 59.0]])
    x, y = 19.5 + 0.1 * 20, 39.5 + 0.2 * 40
    width, height = 20 * math.exp(0.3), 40 * math.exp(-0.4)
    expected = [x - width * 0.5 + 0.5, y - height * 0.5 + 0.5, x + width * 0.5 - 0.5, y + height * 0.5 - 0.5]
    torch.testing.assert_close(decode(deltas, anchor, (1, 1, 1, 1), 1.0), torch.tensor([expected]))


def test_growth_is_limited():
    grown = decode(torch.tensor([[0.0, 0.0, 100.0, 0.0]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]]), (1, 1, 1, 1))
    assert float(grown[0, 2] - grown[0, 0]) == pytest.approx(1000, rel=1e-5)


def test_boxes_are_clipped_to_the_image():
    boxes = torch.tensor([[-5.0, -6.0, 200.0, 300.0]])
    assert clip_boxes(boxes, (64, 96)).tolist() == [[0, 0, 96, 64]]
    assert clip_boxes(boxes, (64, 96), 1.0).tolist() == [[0, 0, 95, 63]]


def test_overlap_of_known_boxes():
    a = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 0.0, 0.0]])
    b = torch.tensor([[5.0, 0.0, 15.0, 10.0], [20.0, 20.0, 30.0, 30.0], [0.0, 0.0, 9.0, 9.0]])
    torch.testing.assert_close(pairwise_iou(a, b), torch.tensor([[1 / 3, 0, 0.81], [0, 0, 0]]))
    assert float(pairwise_iou(a, b, 1.0)[0, 0]) == pytest.approx(6 * 11 / (2 * 121 - 66))


def test_sides_decide_whether_a_box_is_large_enough():
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 4.0], [0.0, 0.0, 4.0, 0.5]])
    assert large_enough(boxes, 1.0).tolist() == [True, False, False]
