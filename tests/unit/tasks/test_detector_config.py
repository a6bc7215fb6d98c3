"""The configuration of a detector as a document, and the values that no detector has."""

from dataclasses import replace

import pytest

from emca_deploy.errors import DataError
from emca_deploy.results import codec
from emca_deploy.tasks.detector_config import DETECTOR_KINDS, DetectorConfig, default_config


@pytest.mark.parametrize("kind", DETECTOR_KINDS)
def test_it_is_read_as_it_was_written(kind):
    config = default_config(kind, 3, ("a", "b", "c"))
    assert codec.from_json(DetectorConfig, codec.to_json(config)) == config


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": 0},
        {"class_names": ("a",)},
        {"anchor_sizes": ((8.0,),)},
        {"anchor_sizes": ((8.0,), (8.0,), (8.0,), (8.0,), (8.0, 9.0))},
        {"anchor_ratios": (0.0,)},
        {"box_weights": (1.0, 1.0, 0.0, 1.0)},
        {"nms_threshold": 1.5},
        {"score_threshold": 1.1},
        {"roi_sampling_ratio": -1},
        {"mask_bins": 0},
        {"anchor_rounding": "up"},
        {"p6_from": "p4"},
    ],
)
def test_values_that_no_detector_has_are_refused(changes):
    with pytest.raises(DataError):
        codec.from_json(DetectorConfig, codec.to_json(replace(default_config("mask_rcnn", 3), **changes)))


def test_retinanet_has_nine_anchors_at_a_place_and_the_others_have_three():
    assert [default_config(kind, 80).anchors_per_place for kind in DETECTOR_KINDS] == [9, 3, 3]
