"""Detectors of all kinds: their sizes, the names and shapes of their outputs, and what creates them."""

import pytest
import torch
from torch import nn

from emca_deploy.errors import InputError, UnknownNameError
from emca_deploy.networks.registry import DETECTORS, FAMILY_OPTIONS, count_parameters, create_model, find_architecture
from zoo.detectors import small_detector


def on_meta(name: str, classes: int, **options):
    with torch.device("meta"):
        return create_model(name, classes, **options)


def affine(model: nn.Module) -> int:
    """Return the number of weights of batch norms, which torchvision's detectors do not count as parameters."""
    return sum(count_parameters(module) for module in model.modules() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize("attention", ["", "eca_"])
def test_faster_rcnn_has_the_size_that_mmdetection_and_eca_net_publish(attention):
    """They count what is trained, with the stem and the first stage frozen."""
    model = on_meta(f"faster_rcnn_{attention}resnet50_fpn", 80)
    model.freeze(1)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained / 1e6 == pytest.approx(41.53, abs=0.005)


@pytest.mark.parametrize(
    ("name", "classes", "background", "published"),
    [
        ("faster_rcnn_resnet50_fpn", 90, 4 * 1025, 41_755_286),
        ("mask_rcnn_resnet50_fpn", 90, 4 * 1025 + 257, 44_401_393),
        ("retinanet_resnet50_fpn", 91, 0, 34_014_999),
    ],
)
def test_they_have_the_sizes_that_torchvision_publishes(name, classes, background, published):
    """Its box and mask heads have outputs for background too; its RetinaNet has 91 classes."""
    model = on_meta(name, classes)
    assert count_parameters(model) - affine(model) + background == published


@pytest.mark.parametrize("family", FAMILY_OPTIONS)
def test_every_family_is_a_backbone(family):
    model = on_meta(f"faster_rcnn_{family}18_fpn", 3)
    backbone = {name: value.shape for name, value in model.backbone.state_dict().items()}
    classifier = on_meta(f"{family}18", 3).state_dict()
    assert backbone == {name: value.shape for name, value in classifier.items() if not name.startswith(("head.", "linear."))}


@torch.inference_mode()
def test_the_backbone_returns_the_stages_of_the_classifier(images):
    """The last map's mean gives the classifier's logits, so its attention is the same."""
    torch.manual_seed(0)
    classifier = create_model("emca_eca_resnet18", 3).eval()
    model = create_model("retinanet_emca_eca_resnet18_fpn", 3).eval()
    model.backbone.load_state_dict({k: v for k, v in classifier.state_dict().items() if not k.startswith("head.")})
    maps = model.backbone(images)
    assert [tuple(x.shape[1:]) for x in maps] == [(64, 24, 32), (128, 12, 16), (256, 6, 8), (512, 3, 4)]
    torch.testing.assert_close(classifier.head(maps[-1].mean((2, 3))), classifier(images))


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn", "mask_rcnn"])
@torch.inference_mode()
def test_the_outputs_have_fixed_shapes(kind, images):
    model = small_detector(kind).eval()
    expected = {"num_detections": (2,), "boxes": (2, 20, 4), "scores": (2, 20), "labels": (2, 20)}
    if kind == "mask_rcnn":
        expected["masks"] = (2, 20, 28, 28)
    assert {name: tuple(value.shape) for name, value in model(images).items()} == expected


@torch.inference_mode()
def test_dense_outputs_belong_to_the_anchors(images):
    retinanet, faster = small_detector("retinanet").eval(), small_detector("faster_rcnn").eval()
    for anchors, name in zip(retinanet.anchors((96, 128)), ("p3", "p4", "p5", "p6", "p7"), strict=True):
        outputs = retinanet.dense(images)
        assert tuple(outputs[f"logits_{name}"].shape) == (2, len(anchors), 3)
        assert tuple(outputs[f"deltas_{name}"].shape) == (2, len(anchors), 4)
    dense = faster.dense(images)
    for anchors, name in zip(faster.anchors((96, 128)), ("p2", "p3", "p4", "p5", "p6"), strict=True):
        assert tuple(dense[f"objectness_{name}"].shape) == (2, len(anchors))
        assert tuple(dense[f"deltas_{name}"].shape) == (2, len(anchors), 4)
    assert tuple(dense["p2"].shape) == (2, 64, 24, 32)


def test_names_are_found():
    arch = find_architecture("mask_rcnn_pkcam_eca_resnet50_fpn")
    assert (arch.detector, arch.family, arch.depth) == ("mask_rcnn", "pkcam_eca_resnet", 50)
    assert len(DETECTORS) == 3 * 40
    with pytest.raises(UnknownNameError):
        find_architecture("cascade_rcnn_resnet50_fpn")


@pytest.mark.parametrize(
    ("options", "error"),
    [({"fpn_chanels": 64}, UnknownNameError), ({"max_detections": 0}, InputError), ({"placement": "middle"}, InputError)],
)
def test_options_that_no_detector_has_are_refused(options, error):
    with pytest.raises(error):
        on_meta("faster_rcnn_eca_resnet18_fpn", 3, **options)
