"""The architecture of a state dict; shapes suffice, and the tests run on the meta device."""

import pytest

from emca_deploy.networks.fitting import Inferred, count_classes, infer, nearest_depth
from emca_deploy.networks.registry import ARCHITECTURES, FAMILY_OPTIONS, create_model

CONFIGURATIONS = [
    {"previous_stages": 0},
    {"previous_stages": 1, "blocks_per_stage": 1},
    {"previous_stages": 1, "blocks_per_stage": "all"},
    {"previous_stages": 2, "blocks_per_stage": 1},
    {"previous_stages": 2, "blocks_per_stage": "all"},
    {"previous_stages": "all", "blocks_per_stage": 1},
    {"previous_stages": "all", "blocks_per_stage": "all"},
    {"placement": "last"},
    {"placement": "last", "previous_stages": 0},
    {"placement": "last", "previous_stages": "all", "blocks_per_stage": 1},
    {"placement": "all", "previous_stages": 1, "blocks_per_stage": 1},
    {"placement": "all", "previous_stages": 1, "blocks_per_stage": "all"},
]


def state_of(name, classes=5, **options):
    import torch

    with torch.device("meta"):
        return create_model(name, classes, **options).state_dict()


@pytest.mark.parametrize("name", [n for n, a in ARCHITECTURES.items() if a.depth in {18, 50} or a.family == "emca_eca_resnet"])
def test_every_architecture(name):
    state = state_of(name)
    assert infer(state) == Inferred(name, {})
    assert count_classes(state) == 5


@pytest.mark.parametrize(("family", "depth"), [("emca_se_resnet", 18), ("emca_eca_resnet", 34), ("emca_srm_resnet", 18)])
@pytest.mark.parametrize("options", CONFIGURATIONS, ids=str)
def test_configurations(family, options, depth):
    state = state_of(f"{family}{depth}", **options)
    inferred = infer(state)
    differing = {name: value for name, value in options.items() if FAMILY_OPTIONS[family][name] != value}
    assert inferred == Inferred(f"{family}{depth}", differing)
    again = state_of(inferred.arch, **inferred.options)
    assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in state.items()}


def test_three_previous_stages_are_all():
    assert infer(state_of("emca_eca_resnet18", previous_stages=3)) == Inferred("emca_eca_resnet18", {"previous_stages": "all"})


@pytest.mark.parametrize("options", [{"eca_kernel_sizes": (3, 5, 7, 7)}, {"eca_kernel_sizes": (9, 5, 5, 5)}])
def test_kernel_sizes_other_than_the_formulas(options):
    assert infer(state_of("eca_resnet18", **options)) == Inferred("eca_resnet18", options)
    assert infer(state_of("eca_resnet18", eca_kernel_sizes=(3, 5, 5, 5))) == Inferred("eca_resnet18", {})


@pytest.mark.parametrize("options", [{"se_bias": True}, {"se_reduction": 8}, {"se_bias": True, "se_reduction": (8, 16, 16, 4)}])
def test_squeeze_and_excitation_of_another_shape(options):
    assert infer(state_of("se_resnet18", **options)) == Inferred("se_resnet18", options)
    assert infer(state_of("emca_se_resnet18", **options)) == Inferred("emca_se_resnet18", options)


def test_what_is_none_of_ours():
    import torch

    state = state_of("emca_eca_resnet18")
    without_block = {key: value for key, value in state.items() if not key.startswith("stage4.block1.")}
    assert infer(without_block) is None
    assert nearest_depth(without_block) == 18
    mixed = {**state, "stage1.block0.attention.excitation.cfc": torch.zeros(64, 2)}
    assert infer(mixed) is None
    assert infer({**state, "stage3.block0.attention.aggregation.weight": torch.zeros(1, 1, 9)}) is None
    assert infer({}) is None
    assert nearest_depth({}) == 0
    assert count_classes({}) is None
    assert nearest_depth(state_of("emca_se_resnet101")) == 101
