"""The detections against an independent reading of the whole post-processing, detection by detection."""

from typing import Any

import numpy as np
import pytest
import torch

from emca_deploy.networks.detectors.postprocessing import BoxDetections
from emca_deploy.tasks.detector_config import DetectorConfig
from zoo import detections as reference
from zoo.detectors import small_detector

SIZE = (96, 128)
FEWEST = 5


def one_image(outputs: dict[str, torch.Tensor], image: int) -> dict[str, np.ndarray]:
    """Return the outputs of one image; the rows of its detections only, if they are detections."""
    values = {name: value[image].numpy() for name, value in outputs.items()}
    rows = values.pop("num_detections", None)
    return values if rows is None else {name: value[: int(rows)] for name, value in values.items()}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found["labels"].tolist() == expected["labels"].tolist()
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.05)


def expected_rcnn(model: Any, dense: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the reference's detections of one image; the layers with weights are the model's own."""
    config = model.config
    anchors = [level.numpy() for level in model.anchors(SIZE)]
    regions = reference.proposals(dense, anchors, SIZE, config)
    logits, deltas = model.roi.box(torch.from_numpy(reference.crops(dense, regions, config.box_bins, config)))
    found = reference.box_detections(logits.numpy(), deltas.numpy(), regions, SIZE, config)
    if model.has_masks and len(found["labels"]):
        crops = reference.crops(dense, found["boxes"], config.mask_bins, config)
        masks = model.roi.mask(torch.from_numpy(crops)).numpy()
        found["masks"] = reference.sigmoid(masks[np.arange(len(masks)), found["labels"]])
    return found


@pytest.mark.parametrize("aligned", [True, False])
@torch.inference_mode()
def test_mask_rcnn_finds_what_the_reference_finds(images, aligned):
    model = small_detector("mask_rcnn", roi_aligned=aligned, nms_rounds=60).eval()
    dense, found = model.dense(images), model(images)
    for image in range(len(images)):
        expected = expected_rcnn(model, one_image(dense, image))
        detections = one_image(found, image)
        assert len(expected["labels"]) >= FEWEST
        assert_same(detections, expected)
        np.testing.assert_allclose(detections["masks"], expected["masks"], atol=1e-3)


@torch.inference_mode()
def test_retinanet_finds_what_the_reference_finds(images):
    model = small_detector("retinanet", nms_rounds=60, post_nms=400).eval()
    dense, found = model.dense(images), model(images)
    anchors = [level.numpy() for level in model.anchors(SIZE)]
    for image in range(len(images)):
        expected = reference.retinanet_detections(one_image(dense, image), anchors, SIZE, model.config)
        assert len(expected["labels"]) >= FEWEST
        assert_same(one_image(found, image), expected)


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "mask_rcnn"])
@torch.inference_mode()
def test_rows_after_the_detections_are_zero(kind, images):
    scores = small_detector(kind, max_detections=50).eval()(images)["scores"]
    threshold = float(scores.amax(1).min()) - 1e-4  # the best score of one image: few detections pass
    found = small_detector(kind, max_detections=50, score_threshold=threshold).eval()(images)
    assert found["num_detections"].dtype == torch.int32
    assert found["labels"].dtype == torch.int32
    for image, count in enumerate(found["num_detections"].tolist()):
        assert 0 < count < 50
        assert bool((found["scores"][image, :count].diff() <= 0).all())
        assert all(not value[image, count:].any() for name, value in found.items() if name != "num_detections")


@torch.inference_mode()
def test_an_image_without_proposals_has_no_detections():
    config = DetectorConfig(3, max_detections=7)
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    found = BoxDetections(config)(torch.zeros(1, 4, 4), torch.zeros(1, 4, 12), torch.zeros(1, 4, 4), nothing, SIZE)
    assert found["num_detections"].tolist() == [0]
    assert found["boxes"].shape == (1, 7, 4)
    assert not found["boxes"].any()
