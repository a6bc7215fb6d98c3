"""Losses that can be trained on: they fall, reach every weight, and choose what they should."""

import pytest
import torch

from emca_deploy.networks.detectors.losses import Sampling
from emca_deploy.networks.detectors.matching import match, pad_targets, sample
from zoo.detectors import small_detector

KINDS = ["retinanet", "faster_rcnn", "mask_rcnn"]


def trained_steps(model, images, targets, steps: int) -> list[float]:
    """Return the sum of the losses at each step of training on one batch."""
    model.sampling = Sampling(32, 32, 8, 16)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    sums = []
    for _ in range(steps):
        total = sum(model.losses(images, targets).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        sums.append(float(total.detach()))
    return sums


@pytest.mark.parametrize("kind", ["retinanet", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
def test_losses_fall_on_one_batch(kind, images, targets):
    sums = trained_steps(small_detector(kind), images, targets, 10)
    assert sum(sums[-2:]) < 0.8 * sum(sums[:2])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_weight(kind, images, targets):
    model = small_detector(kind)
    sum(model.losses(images, targets).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())] == []


def test_frozen_stages_and_batch_norms_stay_as_they_are(images, targets):
    model = small_detector("retinanet")
    model.freeze(2)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    trained_steps(model, images, targets, 1)
    changed = {name for name, value in model.backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.partition(".")[0] for name in changed} == {"stage3", "stage4"}
    assert not any("running" in name for name in changed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_objects_has_finite_losses(kind, images, targets):
    model = small_detector(kind)
    losses = model.losses(images, [targets[1], targets[1]])
    sum(losses.values()).backward()
    assert all(bool(value.isfinite()) for value in losses.values())


def test_matching_follows_the_overlap():
    truth = pad_targets([{"boxes": torch.tensor([[0.0, 0, 10, 10], [50.0, 50, 60, 60]]), "labels": torch.tensor([1, 2])}])
    boxes = torch.tensor([[0.0, 0, 10, 9], [0.0, 0, 10, 5], [52.0, 52, 70, 70], [80.0, 80, 90, 90]])
    plain = match(truth, boxes, 0.7, 0.3)
    assert plain.positive.tolist() == [[True, False, False, False]]
    assert plain.negative.tolist() == [[False, False, True, True]]
    each = match(truth, boxes, 0.7, 0.3, each_object=True)
    assert each.positive.tolist() == [[True, False, True, False]]
    assert each.index[0, :3].tolist() == [0, 0, 1]


def test_a_sample_has_candidates_only():
    candidates = torch.tensor([[True, False, True, True], [False, False, False, True]])
    index, chosen = sample(candidates, 2)
    assert chosen.tolist() == [[True, True], [True, False]]
    assert all(candidates[row, place] for row in range(2) for place in index[row][chosen[row]].tolist())
    assert len(set(index[0].tolist())) == 2
