"""Detectors that are not supported, contradictions, and what cannot be read: refused or reported, and nothing is run."""

import pytest
from refusals import refusing

from emca_deploy.checkpoint_files.mmdet_config import Unread, read_config
from emca_deploy.errors import CheckpointError
from emca_deploy.networks.checkpoints import load_checkpoint
from zoo.checkpoints import saved
from zoo.detector_files import CONFIG, LEGACY_CONFIG, numbered, sections, shapes_of

REFUSED = {
    "cascade_rcnn": "Cascade", "htc": "Hybrid Task Cascade", "fcos": "FCOS", "ssd": "SSD", "yolo": "YOLO", "detr": "DETR",
    "reppoints": "RepPoints", "point_rend": "PointRend", "gn": "GN", "atss": "ATSS", "grid_rcnn": "Grid",
    "ms_rcnn": "Mask Scoring", "pafpn": "PAFPN", "hrnet": "neck", "double_heads": "Double-Head", "yolox": "YOLO",
    "guided_anchoring": "guided anchors", "libra_rcnn": "neck", "resnest": "backbone", "solo": "SOLO", "sparse_rcnn": "Sparse",
    "faster_rcnn": "C4", "keypointrcnn": "Keypoint", "fcos_resnet50_fpn": "FCOS", "ssd300": "SSD", "mobilenet": "backbone",
    "retinanet_resnet50_fpn_v2": "v2", "fasterrcnn_resnet50_fpn_v2": "v2",
}  # fmt: skip


def word_of(section):
    place = section.removeprefix("torchvision ")
    found = REFUSED.get(place.partition("/")[0])
    return found or next(word for name, word in reversed(REFUSED.items()) if name in place)


@pytest.mark.parametrize("section", sections("refused"))
def test_other_detectors_are_refused_with_their_name(tmp_path, section):
    path = saved(tmp_path, {"state_dict": numbered(sections("refused")[section]), "meta": {}})
    with refusing(CheckpointError, path, word_of(section)):
        load_checkpoint(path)


def mmdetection(folder, text=CONFIG, kind="mask_rcnn", shapes=None, **meta):
    tensors = numbered(shapes_of("mmdetection-3", kind) | (shapes or {}))
    return saved(folder, {"state_dict": tensors, "meta": {"config": text, **meta}})


CHANGES = {
    "classes": ("num_classes=5,", "num_classes=80,", "num_classes"),
    "depth": ("depth=18", "depth=50", "depth"),
    "pyramid": ("out_channels=32", "out_channels=256", "fpn_channels"),
    "box head": ("fc_out_channels=48", "fc_out_channels=1024", "box_head_width"),
    "masks": ("mask_head=dict(type='FCNMaskHead', num_convs=4, num_classes=5)", "mask_head=None", "mask head"),
    "anchors": ("scales=[8]", "scales=[4, 8]", "anchors"),
    "coder": ("DeltaXYWHBBoxCoder', target_means=[0.]", "TBLRBBoxCoder', target_means=[0.]", "TBLRBBoxCoder"),
    "convolutions": ("out_channels=32", "out_channels=32, conv_cfg=dict(type='ConvWS')", "ConvWS"),
    "roi": ("RoIAlign', output_size=7", "RoIPool', output_size=7", "RoIPool"),
    "dilation": ("depth=18", "depth=18, dilations=(1, 1, 1, 2)", "dilations"),
    "scores": ("type='CrossEntropyLoss'", "type='SeesawLoss'", "SeesawLoss"),
    "means": ("target_means=[0.] * 4", "target_means=[0.1] * 4", "means"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_configuration_of_another_detector_is_refused(tmp_path, change):
    old, new, named = CHANGES[change]
    assert old in CONFIG
    path = mmdetection(tmp_path, CONFIG.replace(old, new))
    with refusing(CheckpointError, path, named):
        load_checkpoint(path)


def test_heads_for_different_numbers_of_classes(tmp_path):
    path = mmdetection(tmp_path, shapes={"roi_head.bbox_head.fc_reg.weight": (24, 48), "roi_head.bbox_head.fc_reg.bias": (24,)})
    with refusing(CheckpointError, path, "roi_head.bbox_head.fc_cls.weight", "roi_head.bbox_head.fc_reg.weight", 24):
        load_checkpoint(path)


def test_a_missing_part_is_named(tmp_path):
    shapes = shapes_of("mmdetection-3", "mask_rcnn")
    shapes = {name: shape for name, shape in shapes.items() if "mask_head.convs.2" not in name}
    path = saved(tmp_path, {"state_dict": numbered(shapes)})
    with refusing(CheckpointError, path, "roi.mask.convs.2.weight"):
        load_checkpoint(path)


def test_a_file_that_mmdetection_converted_is_refused(tmp_path):
    path = mmdetection(tmp_path, mmdet_version="1.2.0")
    with refusing(CheckpointError, path, "upgrade_model_version"):
        load_checkpoint(path)
    path = mmdetection(tmp_path, LEGACY_CONFIG)
    with refusing(CheckpointError, path, "upgrade_model_version"):
        load_checkpoint(path)


def test_a_classifier_is_no_detector_and_a_detector_no_classifier(tmp_path):
    detector = saved(tmp_path, numbered(shapes_of("torchvision-0.28", "faster_rcnn")), "detector.pth")
    with refusing(CheckpointError, detector, "the detector faster_rcnn_resnet18_fpn"):
        load_checkpoint(detector, "resnet18")
    body = {name.removeprefix("backbone."): shape for name, shape in sections("mmdetection-3")["body"].items()}
    classifier = saved(tmp_path, numbered(body | {"fc.weight": (5, 512), "fc.bias": (5,)}), "classifier.pth")
    with refusing(CheckpointError, classifier, "the classifier resnet18"):
        load_checkpoint(classifier, "faster_rcnn_resnet18_fpn")


def test_parts_that_cannot_be_read_are_reported_and_not_run(tmp_path):
    made = tmp_path / "made"
    text = CONFIG.replace("nms_pre=900", f"nms_pre=open({str(made)!r}, 'w').write('x')").replace(
        "type='nms', iou_threshold=0.45", "type='soft_nms'"
    )
    _, spec = load_checkpoint(mmdetection(tmp_path, text))
    assert not made.exists()
    assert any("nms_pre" in part for part in spec.source.unread)
    assert any("soft_nms" in part for part in spec.source.unread)
    assert spec.detector.pre_nms == 1000


def test_what_a_file_does_not_state_is_reported(tmp_path):
    _, spec = load_checkpoint(saved(tmp_path, {"state_dict": numbered(shapes_of("mmdetection-3", "retinanet"))}))
    assert any("version" in fact for fact in spec.source.assumed)
    assert any("configuration" in fact for fact in spec.source.assumed)
    _, spec = load_checkpoint(mmdetection(tmp_path, mmdet_version="2.28.2"))
    assert (spec.source.assumed, spec.source.unread) == ((), ())


def test_values_of_a_configuration():
    text = """\
# a comment
scales = [8]
norm = dict(mean=[1.5, 2], to_rgb=True)
model = dict(a=1.0 / 4, b=-3, c='x' + 'y', d=[0.] * 3, e=(*scales, 16), f=dict(**norm, std=1), g=f(2), h=None)
"""
    found = read_config(text)
    model = found["model"]
    assert (model["a"], model["b"], model["c"], model["d"], model["e"]) == (0.25, -3, "xy", [0, 0, 0], (8, 16))
    assert model["f"] == {"mean": [1.5, 2], "to_rgb": True, "std": 1}
    assert (model["g"], model["h"]) == (Unread("f(2)"), None)


def test_joined_files_are_merged_into_their_bases():
    text = "/base/model.py\nmodel = dict(a=dict(x=1, y=2), b=dict(z=3))\n/own.py\n_base_ = ['model.py']\n"
    text += "model = dict(a=dict(y=5), b=dict(_delete_=True, w=4))\n"
    assert read_config(text)["model"] == {"a": {"x": 1, "y": 5}, "b": {"w": 4}}


DOUBLED = "a = dict(x=1)\n" + "a = dict(x=a, y=a)\n" * 60


HOSTILE = ["model = (", "x = " + "(" * 5000, "x = " + "-" * 100_000 + "1", "x = " + "+".join(["1"] * 100_000)]


@pytest.mark.parametrize("text", [*HOSTILE, f"{DOUBLED}b.py\n{DOUBLED}"])
def test_hostile_configurations_end_quickly(text):
    assert read_config(text) is None


def test_a_repeated_value_is_not_printed_in_full(tmp_path):
    _, spec = load_checkpoint(mmdetection(tmp_path, f"{DOUBLED}{CONFIG}".replace("nms_pre=900", "nms_pre=a")))
    assert all(len(part) < 300 for part in spec.source.unread)
