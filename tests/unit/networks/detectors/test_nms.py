"""Suppression by arithmetic against greedy suppression."""

import numpy as np
import pytest
import torch

from emca_deploy.networks.detectors.nms import BLOCK, suppress
from zoo.detections import greedy_nms


def kept(boxes: np.ndarray, threshold: float, rounds: int, labels: np.ndarray | None = None) -> list[int]:
    values = torch.tensor(boxes, dtype=torch.float64)
    classes = None if labels is None else torch.tensor(labels)
    return torch.nonzero(suppress(values, torch.ones(len(boxes), dtype=torch.float64), threshold, rounds, classes))[:, 0].tolist()


def crowd(count: int, seed: int) -> np.ndarray:
    """Return boxes around a few centres, so that many overlap."""
    random = np.random.default_rng(seed)
    centres = random.uniform(20, 80, (6, 2))[random.integers(6, size=count)] + random.normal(0, 4, (count, 2))
    sides = random.uniform(10, 30, (count, 2))
    return np.concatenate([centres - sides / 2, centres + sides / 2], 1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_it_keeps_what_greedy_suppression_keeps(seed, threshold):
    boxes, labels = crowd(120, seed), np.random.default_rng(seed).integers(3, size=120)
    falling = -np.arange(120.0)
    assert kept(boxes, threshold, 120) == greedy_nms(boxes, falling, threshold)
    assert kept(boxes, threshold, 120, labels) == greedy_nms(boxes, falling, threshold, labels)


def chain(length: int) -> np.ndarray:
    """Return boxes each of which overlaps only the next one by more than a half."""
    left = np.arange(length) * 3.0
    return np.stack([left, np.zeros(length), left + 10, np.full(length, 10.0)], 1)


def test_a_chain_of_thirty_boxes_needs_as_many_rounds_as_its_length():
    boxes = chain(30)
    expected = greedy_nms(boxes, -np.arange(30.0), 0.5)
    assert expected == list(range(0, 30, 2))
    assert kept(boxes, 0.5, 29) == expected
    assert kept(boxes, 0.5, 10) != expected


@pytest.mark.parametrize("classes", [1, 3])
def test_boxes_of_a_block_suppress_those_of_later_blocks(classes):
    count = 2 * BLOCK + 40
    boxes, labels = crowd(count, 0), np.random.default_rng(0).integers(classes, size=count)
    assert kept(boxes, 0.5, 40, labels) == greedy_nms(boxes, -np.arange(count), 0.5, labels)


def test_a_chain_through_all_blocks_needs_no_more_rounds_than_a_block_has_boxes():
    boxes = chain(2 * BLOCK + 10)
    assert kept(boxes, 0.5, BLOCK - 1) == list(range(0, len(boxes), 2))
    assert kept(boxes, 0.5, 30) != list(range(0, len(boxes), 2))


def test_a_box_that_does_not_take_part_suppresses_none():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [2.0, 0.0, 12.0, 10.0]])
    assert suppress(boxes, torch.tensor([0.0, 1.0, 1.0]), 0.5, 5).tolist() == [0, 1, 0]


def test_each_image_and_level_is_suppressed_alone():
    boxes = torch.tensor(np.stack([crowd(40, seed) for seed in range(6)])).reshape(2, 3, 40, 4)
    together = suppress(boxes, torch.ones(2, 3, 40, dtype=boxes.dtype), 0.5, 40)
    for image in range(2):
        for level in range(3):
            alone = suppress(boxes[image, level], torch.ones(40, dtype=boxes.dtype), 0.5, 40)
            assert torch.equal(together[image, level], alone)
