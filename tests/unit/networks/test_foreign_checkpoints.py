"""Loading checkpoints with the key names of other repositories."""

import functools
import re

import pytest

from emca_deploy.networks.checkpoints import load_checkpoint
from emca_deploy.networks.registry import count_parameters, create_model
from zoo.checkpoints import assert_close_logits, assert_equal_logits, randomise, saved

SLOW = pytest.mark.slow
DEEP_TWINS = {"torchvision-50", "ecanet-50", "timm-se-50"}
"""Forms that another case covers, at this or another depth."""


@functools.cache
def foreign():
    """The foreign networks, imported only when a test needs them, since they import torch."""
    from zoo import foreign_resnets

    return foreign_resnets


KERNELS_18 = (3, 5, 7, 7)
FOREIGN = {
    "torchvision-18": (lambda: foreign().ForeignResNet(18, 6), "resnet18", {}, "torchvision"),
    "torchvision-50": (lambda: foreign().ForeignResNet(50, 6), "resnet50", {}, "torchvision"),
    "ecanet-18": (
        lambda: foreign().ForeignResNet(18, 6, "eca", lambda s, c: foreign().Eca(c, KERNELS_18[s])),
        "eca_resnet18",
        {"eca_kernel_sizes": KERNELS_18},
        "torchvision",
    ),
    "ecanet-50": (
        lambda: foreign().ForeignResNet(50, 6, "eca", lambda s, c: foreign().Eca(c, (5, 5, 5, 7)[s])),
        "eca_resnet50",
        {},
        "torchvision",
    ),
    "senet-34": (lambda: foreign().ForeignResNet(34, 6, "se", lambda s, c: foreign().SeNet(c)), "se_resnet34", {}, "torchvision"),
    "timm-se-18": (
        lambda: foreign().ForeignResNet(18, 6, "se", lambda s, c: foreign().SeConv(c, smallest=8)),
        "se_resnet18",
        {"se_bias": True, "se_reduction": (8, 16, 16, 16)},
        "timm",
    ),
    "timm-se-50": (
        lambda: foreign().ForeignResNet(50, 6, "se", lambda s, c: foreign().SeConv(c, smallest=8)),
        "se_resnet50",
        {"se_bias": True},
        "timm",
    ),
    "timm-eca-18": (
        lambda: foreign().ForeignResNet(18, 6, "se", lambda s, c: foreign().Eca(c, (3, 5, 5, 5)[s])),
        "eca_resnet18",
        {},
        "timm",
    ),
    "pretrained-models-50": (
        lambda: foreign().ForeignResNet(50, 6, "se_module", lambda s, c: foreign().SeConv(c), caffe=True),
        "se_resnet50",
        {"se_bias": True, "caffe": True},
        "pretrained-models",
    ),
    "se-module-18": (
        lambda: foreign().ForeignResNet(18, 6, "se_module", lambda s, c: foreign().SeConv(c)),
        "se_resnet18",
        {"se_bias": True},
        "pretrained-models",
    ),
    "srm-18": (lambda: foreign().ForeignResNet(18, 6, "rclb", lambda s, c: foreign().Srm(c)), "srm_resnet18", {}, "srm"),
    "srm-layer-18": (
        lambda: foreign().ForeignResNet(18, 6, "srm", lambda s, c: foreign().Srm(c, convolution=True)),
        "srm_resnet18",
        {},
        "srm",
    ),
    "srm-se-18": (
        lambda: foreign().ForeignResNet(18, 6, "rclb", lambda s, c: foreign().SeNet(c, bias=True)),
        "se_resnet18",
        {"se_bias": True},
        "srm",
    ),
}


@pytest.mark.parametrize("case", [pytest.param(case, marks=SLOW if case in DEEP_TWINS else ()) for case in FOREIGN])
def test_foreign_networks_keep_their_logits(tmp_path, case):
    make, arch, options, layout = FOREIGN[case]
    model = randomise(make())
    loaded, spec = load_checkpoint(saved(tmp_path, model.state_dict()))
    assert (spec.arch, spec.num_classes, spec.options, spec.layout) == (arch, 6, options, layout)
    assert spec.params == count_parameters(model)
    assert_close_logits(model, loaded)
    # The two networks add in different orders; the sums of the weights show that these are loaded exactly.
    ours, theirs = (sorted(float(v.double().sum()) for v in m.state_dict().values()) for m in (loaded, model))
    assert ours == theirs


def as_hugging_face(key):
    """Torchvision's names renamed to those of transformers' ResNetForImageClassification."""
    key = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", key)
    key = re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", key)
    key = re.sub(r"^fc\.", "classifier.1.", key)
    match = re.match(r"layer(\d)\.(\d+)\.(conv|bn|downsample)\.?(\d)\.(.*)", key)
    if match is None:
        return key
    stage, block, kind, number, rest = match.groups()
    normalises = kind == "bn" or (kind == "downsample" and number == "1")
    part = "shortcut" if kind == "downsample" else f"layer.{int(number) - 1}"
    module = "normalization" if normalises else "convolution"
    return f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.{part}.{module}.{rest}"


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=SLOW)])
def test_hugging_faces_network_keeps_its_logits(tmp_path, depth):
    from safetensors.torch import save_file

    model = randomise(foreign().ForeignResNet(depth, 6))
    path = tmp_path / "model.safetensors"
    save_file({as_hugging_face(key): value.contiguous() for key, value in model.state_dict().items()}, path)
    loaded, spec = load_checkpoint(path)
    assert (spec.arch, spec.layout, spec.source.head) == (f"resnet{depth}", "huggingface", "classifier.1")
    assert_close_logits(model, loaded)


def test_a_sequential_of_torchvisions_children_keeps_its_logits(tmp_path):
    from torch import nn

    model = randomise(foreign().ForeignResNet(18, 6))
    stages = [model.get_submodule(f"layer{stage}") for stage in range(1, 5)]
    wrapper = nn.Module()
    wrapper.features = nn.Sequential(model.conv1, model.bn1, nn.ReLU(), nn.MaxPool2d(3, 2, 1), *stages, nn.AdaptiveAvgPool2d(1))
    wrapper.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(), model.fc)
    loaded, spec = load_checkpoint(saved(tmp_path, wrapper.state_dict()))
    assert (spec.layout, spec.source.prefix, spec.source.head) == ("sequential", "features.", "classifier.2")
    assert_close_logits(model, loaded)


@pytest.mark.parametrize("name", ["se_resnet18", "eca_resnet18", "srm_resnet18", "resnet18"])
def test_renamed_keys_give_the_same_logits_exactly(tmp_path, name):
    model = randomise(create_model(name, 4))
    theirs = {
        r"^stem\.conv": "conv1",
        r"^stem\.bn": "bn1",
        r"^head": "fc",
        r"stage(\d)\.block(\d)": r"layer\1.\2",
        r"shortcut\.conv": "downsample.0",
        r"shortcut\.bn": "downsample.1",
        r"attention\.excitation\.reduce": "se.fc.0",
        r"attention\.excitation\.expand": "se.fc.2",
        r"attention\.excitation\.conv": "eca.conv",
        r"attention\.excitation\.(cfc|bn)": r"rclb.\1",
    }
    state = model.state_dict()
    for ours, foreign_name in theirs.items():
        state = {re.sub(ours, foreign_name, key): value for key, value in state.items()}
    assert not any("stage" in key or "attention" in key for key in state)
    loaded, spec = load_checkpoint(saved(tmp_path, state))
    assert (spec.arch, spec.options) == (name, {})
    assert_equal_logits(model, loaded)
