"""Matching the detections of two runs of a network."""

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.errors import GateError
from emca_deploy.exporting.detection_parity import check_dense, check_detections, match_detections

THRESHOLD = 0.05


def outputs(seed=0, count=7, masks=True):
    """Return the outputs of two images, with `count` and no detections in nine rows."""
    numbers = np.random.default_rng(seed)
    found = {
        "num_detections": np.array([count, 0], np.int32),
        "boxes": numbers.uniform(0, 90, (2, 9, 4)).astype(np.float32),
        "scores": -np.sort(-numbers.uniform(0.1, 1, (2, 9)).astype(np.float32), axis=1),
        "labels": numbers.integers(0, 3, (2, 9)).astype(np.int32),
        "masks": numbers.uniform(0, 1, (2, 9, 4, 4)).astype(np.float32),
    }
    return found if masks else {name: array for name, array in found.items() if name != "masks"}


def changed(name, place, value):
    other = {key: array.copy() for key, array in outputs().items()}
    other[name][place] += value
    return other


@pytest.mark.parametrize("masks", [True, False])
def test_the_same_detections_match_in_any_order(masks):
    ours, theirs = outputs(masks=masks), outputs(masks=masks)
    for name in set(theirs) - {"num_detections"}:
        theirs[name][0, :7] = theirs[name][0, :7][::-1]
    found = check_detections(ours, theirs, THRESHOLD)
    assert (found.detections, found.matched, found.score_error, found.box_error_px) == (7, 7, 0, 0)
    assert found.mask_error == (0 if masks else None)


@pytest.mark.parametrize(
    ("name", "place", "small", "large"),
    [("scores", (0, 2), 5e-5, 2e-4), ("boxes", (0, 2, 1), 0.03, 0.1), ("masks", (0, 2, 1, 1), 5e-4, 2e-3)],
)
def test_a_difference_above_its_tolerance_is_refused(name, place, small, large):
    found = check_detections(outputs(), changed(name, place, small), THRESHOLD)
    errors = {"scores": found.score_error, "boxes": found.box_error_px, "masks": found.mask_error}
    assert (found.matched, errors[name]) == (7, pytest.approx(small, rel=0.1))
    with refusing(GateError, "2 of 8 detections"):
        check_detections(outputs(), changed(name, place, large), THRESHOLD)


@pytest.mark.parametrize(
    "other", [changed("labels", (0, 3), 1), changed("num_detections", 0, 1), changed("num_detections", 1, 1)]
)
def test_another_class_and_an_additional_detection_are_refused(other):
    with refusing(GateError, "detections"):
        check_detections(outputs(), other, THRESHOLD)


def test_one_detection_does_not_match_two():
    ours = outputs()
    for name in set(ours) - {"num_detections"}:
        ours[name][0, 1] = ours[name][0, 0]
    theirs = {name: array.copy() for name, array in ours.items()}
    theirs["boxes"][0, 1] += 30
    found = match_detections(ours, theirs, THRESHOLD)
    assert found.detections - found.matched == 2  # one that only they have, and one that only we have


@pytest.mark.parametrize("count", [7, 9])
def test_a_detection_that_rounding_can_add_or_drop_needs_no_match(count):
    """At the threshold, or the last one of a full list."""
    ours, theirs = outputs(count=count), outputs(count=count)
    last = count - 1
    ours["scores"][0, last] = theirs["scores"][0, last] = THRESHOLD + 1e-5 if count == 7 else 0.1
    theirs["boxes"][0, last] += 40
    found = check_detections(ours, theirs, THRESHOLD)
    assert found.detections == found.matched == count


def test_dense_outputs_are_compared_by_the_worst():
    dense = {"p2": np.ones((2, 3, 4), np.float32), "p3": np.full((2, 3), 2, np.float32)}
    other = {name: array.copy() for name, array in dense.items()}
    other["p3"][0, 0] += 1e-4
    assert check_dense(dense, other, ["p2", "p3"]).max_rel == pytest.approx(5e-5, rel=0.01)
    other["p2"][1, 0] += 1e-2
    with refusing(GateError, "p2"):
        check_dense(dense, other, ["p2", "p3"])
    other["p2"][1, 0] = np.nan
    with refusing(GateError, "p2"):
        check_dense(dense, other, ["p2", "p3"])
    with refusing(GateError, "PyTorch"):
        check_dense(other, dense, ["p2", "p3"])
