"""Parameters and multiply-adds against the paper's table."""

import pytest

from emca_deploy.errors import InputError, UnknownNameError
from emca_deploy.networks.registry import ARCHITECTURES, count_macs, count_parameters, create_model

MI, GI = 2**20, 2**30

# The paper omits half of every `cfc`; these figures count everything.
CORRECTED_SRM = {
    "srm_resnet18": 11.155,
    "srm_resnet34": 20.802,
    "srm_resnet50": 24.431,
    "emca_srm_resnet18": 11.152,
    "emca_srm_resnet34": 20.792,
    "emca_srm_resnet50": 24.388,
}
PUBLISHED = [name for name, arch in ARCHITECTURES.items() if arch.published]


def on_meta(name, **options):
    import torch

    with torch.device("meta"):
        return create_model(name, **options)


def test_published_table_is_whole():
    assert len(PUBLISHED) == 21
    assert {ARCHITECTURES[name].depth for name in PUBLISHED} == {18, 34, 50}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_match_the_paper(name):
    expected = CORRECTED_SRM.get(name, ARCHITECTURES[name].published.params_mi)
    assert count_parameters(on_meta(name)) / MI == pytest.approx(expected, abs=0.0006)


@pytest.mark.parametrize("name", PUBLISHED)
def test_multiply_adds_match_the_paper(name):
    assert count_macs(on_meta(name), 224) / GI == pytest.approx(ARCHITECTURES[name].published.gmacs_gi, rel=0.01)


def test_multiply_adds_of_a_layer_counted_by_hand():
    # 8 x 8 outputs of 5 channels, each 3 * 3 * 3 products; then 320 inputs to 7 outputs.
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(320, 7))
    assert count_macs(module, 8) == 8 * 8 * 5 * 27 + 320 * 7


def test_counting_leaves_the_module_alone():
    import torch

    module = create_model("emca_srm_resnet18", 10).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    count_macs(module, 64)
    assert module.training
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize(("depth", "params"), [(101, 44_549_160), (152, 60_192_808)])
def test_deep_networks_have_torchvisions_parameters(depth, params):
    assert count_parameters(on_meta(f"resnet{depth}")) == params


def test_unknown_names_say_the_nearest():
    with pytest.raises(UnknownNameError, match="emca_eca_resnet18") as caught:
        create_model("emca_eca_resnet81")
    assert "emca_eca_resnet18" in caught.value.remedy
    with pytest.raises(UnknownNameError) as caught:
        create_model("emca_eca_resnet18", placment="last")
    assert "placement" in caught.value.remedy
    with pytest.raises(UnknownNameError, match="pkcam"):
        create_model("pkcam_eca_resnet18", placement="last")


@pytest.mark.parametrize(
    "options",
    [
        {"placement": "middle"},
        {"previous_stages": 7},
        {"previous_stages": True},
        {"blocks_per_stage": 2},
        {"position": "before"},
        {"eca_kernel_sizes": (3, 3, 4, 5)},
        {"eca_kernel_sizes": (3, 3)},
        {"se_reduction": 0},
        {"se_reduction": (16, 16)},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        create_model("emca_eca_resnet18", **options)
