"""The error for a checkpoint that fits no architecture."""

import functools
import re

import pytest

from emca_deploy.errors import CheckpointError
from emca_deploy.networks.checkpoints import load_checkpoint
from emca_deploy.networks.registry import create_model
from zoo.checkpoints import saved


@functools.cache
def foreign():
    """The foreign networks, imported only when a test needs them, since they import torch."""
    from zoo import foreign_resnets

    return foreign_resnets


def problem_of(tmp_path, state, arch=None):
    path = saved(tmp_path, state)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, arch)
    assert caught.value.problem.startswith(f"{path}: ")
    assert "\n" not in caught.value.problem
    return caught.value.problem


def test_what_fits_nothing_names_the_nearest_and_the_keys(tmp_path):
    import torch

    state = create_model("emca_eca_resnet18", 10).state_dict()
    del state["stage4.block1.conv2.weight"], state["stage4.block1.bn2.weight"]
    state["stage1.block0.gate.weight"] = torch.zeros(3)
    state["stage1.block0.conv1.weight"] = torch.zeros(64, 32, 3, 3)
    problem = problem_of(tmp_path, state)
    assert "the nearest is emca_eca_resnet18" in problem
    assert "missing 2: stage4.block1.conv2.weight, stage4.block1.bn2.weight" in problem
    assert "unexpected 1: stage1.block0.gate.weight" in problem
    assert "misshapen 1: stage1.block0.conv1.weight (64x32x3x3, not 64x64x3x3)" in problem


def test_foreign_problems_are_told_in_the_files_own_names(tmp_path):
    import torch

    state = foreign().ForeignResNet(18, 6).state_dict()
    del state["layer2.0.downsample.0.weight"], state["fc.bias"]
    state["layer3.1.conv2.weight"] = torch.zeros(256, 128, 3, 3)
    problem = problem_of(tmp_path, state)
    assert "missing 2: layer2.0.downsample.0.weight, fc.bias" in problem
    assert "layer3.1.conv2.weight (256x128x3x3, not 256x256x3x3)" in problem


def test_long_lists_of_keys_are_cut(tmp_path):
    state = create_model("resnet34", 10).state_dict()
    problem = problem_of(tmp_path, {k: v for k, v in state.items() if not k.startswith("stage3.block5")})
    assert "nearest is resnet34" in problem
    assert re.search(r"missing 10: stage3\.block5\.\S+, stage3\.block5\.\S+, stage3\.block5\.\S+, \.\.\.$", problem)


def test_a_backbone_without_its_head_is_refused(tmp_path):
    state = foreign().ForeignResNet(50, 6).state_dict()
    problem = problem_of(tmp_path, {k: v for k, v in state.items() if not k.startswith("fc.")})
    assert "resnet50" in problem
    assert "missing 2: fc.weight, fc.bias" in problem


def test_attention_in_odd_blocks_is_refused(tmp_path):
    state = create_model("eca_resnet34", 10).state_dict()
    del state["stage3.block2.attention.excitation.conv.weight"]
    assert "nearest is eca_resnet34: 197 of its 198 tensors match; missing 1: stage3.block2" in problem_of(tmp_path, state)


def test_impossible_numbers_of_scales_are_refused(tmp_path):
    import torch

    state = create_model("emca_eca_resnet18", 10).state_dict()
    state["stage3.block0.attention.aggregation.weight"] = torch.zeros(1, 1, 9)
    assert "stage3.block0.attention.aggregation.weight (1x1x9, not 1x1x3)" in problem_of(tmp_path, state)


def test_even_kernels_and_integer_weights_are_refused(tmp_path):
    import torch

    state = create_model("eca_resnet18", 10).state_dict()
    state["stage1.block0.attention.excitation.conv.weight"] = torch.zeros(1, 1, 4)
    assert "(1x1x4, not 1x1x3)" in problem_of(tmp_path, state)
    state = create_model("resnet18", 10).state_dict()
    state["head.weight"] = torch.zeros(10, 512, dtype=torch.int8)
    assert "head.weight (torch.int8, not 10x512)" in problem_of(tmp_path, state)


def test_other_networks_are_no_resnets(tmp_path):
    import torch

    state = {"blocks.0.attn.qkv.weight": torch.zeros(3, 3), "cls_token": torch.zeros(1)}
    assert "holds no ResNet; its keys are like blocks.0.attn.qkv.weight, cls_token" in problem_of(tmp_path, state)


def variant(**changes):
    import torch

    with torch.device("meta"):
        shapes = foreign().ForeignResNet(50, 6).state_dict()
    state = {key: torch.zeros(value.shape) for key, value in shapes.items() if "layer3" not in key and "layer4" not in key}
    for key, shape in changes.items():
        state[key.replace("__", ".")] = torch.zeros(shape)
    return state


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conv1__0__weight": (32, 3, 3, 3)}, "deep stem"),
        ({"conv1__weight": (64, 3, 3, 3)}, "3x3 stem"),
        ({"layer2__0__downsample__1__weight": (512, 256, 1, 1)}, "ResNet-D"),
        ({"layer2__0__downsample__0__weight": (512, 256, 3, 3)}, "3x3 shortcut"),
        ({"layer1__0__conv2__weight": (128, 4, 3, 3)}, "ResNeXt"),
        ({"layer1__0__conv2__weight": (128, 128, 3, 3)}, "another width, 128"),
    ],
)
def test_variants_of_resnet_are_named(tmp_path, changes, said):
    problem = problem_of(tmp_path, variant(**changes))
    assert "variant that is not supported" in problem
    assert said in problem
