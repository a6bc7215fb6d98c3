"""Checkpoints of networks with layers other than a ResNet's, or without some of them."""

import re

import pytest

from zoo.checkpoints import assert_loads, hugging_face, mmpretrain, numbered, prefixed, refused, saved, torchvision


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"fc.0.weight": (256, 512), "fc.0.bias": (256,), "fc.3.weight": (7, 256), "fc.3.bias": (7,)}, "2 linear layers"),
        ({"fc.0.weight": (512,), "fc.0.running_mean": (512,), "fc.0.running_var": (512,), "fc.1.weight": (7, 512)}, "fc.0"),
        ({"fc.weight": (256, 512), "fc.bias": (256,), "fc2.weight": (7, 256), "fc2.bias": (7,)}, "fc2.weight"),
        ({"fc.weight": (7, 512), "fc.bias": (7,), "pool.p": (1,)}, "pool.p (1)"),
        ({"fc.weight": (7, 512), "fc.bias": (7,), "normalize.mean": (3,), "normalize.std": (3,)}, "normalize.mean (3)"),
        ({"fc.weight": (7, 512), "fc.bias": (7,), "neck.conv.weight": (512, 512, 1, 1)}, "neck.conv"),
        ({"color.weight": (7, 512), "color.bias": (7,), "shape.weight": (3, 512), "shape.bias": (3,)}, "more than one head"),
    ],
)
def test_networks_with_more_layers_are_refused_with_these_layers(folder, extra, said):
    import torch

    trunk = {name: value for name, value in torchvision(numbered()).items() if not name.startswith("fc.")}
    path = saved(folder, {"state_dict": prefixed("model.", trunk | {name: torch.ones(shape) for name, shape in extra.items()})})
    assert said in refused(path).problem


def test_layers_beside_may_be_left_out_when_asked_for(folder):
    import torch

    state = numbered()
    path = saved(folder, {"net." + name: value for name, value in (state | {"decoder.weight": torch.ones(4, 512, 1, 1)}).items()})
    choice = re.search(r"--prefix (\S+)", refused(path).remedy)[1]
    assert assert_loads(path, state, prefix=choice).source.left_out == {"net.decoder.weight": 1}


def test_a_trunk_without_any_head_is_named_with_what_is_missing(folder):
    trunk = {name: value for name, value in mmpretrain(numbered()).items() if not name.startswith("head.")}
    assert "missing 2: backbone.fc.weight, backbone.fc.bias" in refused(saved(folder, trunk)).problem


def test_a_missing_tensor_is_named_as_the_file_would_name_it(folder):
    state = hugging_face(numbered())
    del state["resnet.encoder.stages.1.layers.0.shortcut.convolution.weight"]
    assert "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight" in refused(saved(folder, state)).problem


def test_values_that_are_none_name_the_tensor_and_only_of_the_network(folder):
    import torch

    state = numbered()
    assert_loads(saved(folder, {"model": state, "losses": torch.tensor([1.0, float("nan")])}), state)
    broken = state | {"stem.bn.bias": torch.full((64,), float("inf"))}
    assert "'stem.bn.bias' holds NaN or infinity" in refused(saved(folder, {"model": broken})).problem
    both = saved(folder, {"model": state, "ema": broken})
    assert "--weights plain" in refused(both).remedy
    assert_loads(both, state, weights="plain")
