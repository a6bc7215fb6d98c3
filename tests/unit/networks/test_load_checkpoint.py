"""Loading checkpoints with our own key names."""

from contextlib import nullcontext

import pytest
from refusals import refusing

import emca_deploy
from emca_deploy.errors import CheckpointError, UnknownNameError
from emca_deploy.networks.checkpoints import load_checkpoint
from emca_deploy.networks.registry import FAMILY_OPTIONS, count_parameters, create_model
from zoo.checkpoints import assert_equal_logits, randomise, saved

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("family", "depth"),
    [*((family, 18) for family in FAMILY_OPTIONS), pytest.param("emca_se_resnet", 50, marks=SLOW), ("emca_srm_resnet", 50)],
)
def test_native_round_trip(tmp_path, family, depth, small_networks):
    """At depth 18 with a quarter of the width, at depth 50 as published."""
    with small_networks() if depth == 18 else nullcontext():
        model = randomise(create_model(f"{family}{depth}", 7))
        loaded, spec = load_checkpoint(saved(tmp_path, model.state_dict()))
    assert (spec.arch, spec.num_classes, spec.options) == (f"{family}{depth}", 7, {})
    assert spec.layout == ("pkcam" if family == "pkcam_eca_resnet" else "native")
    assert spec.params == count_parameters(model)
    assert not loaded.training
    assert_equal_logits(model, loaded)


def test_position_is_what_the_caller_says(tmp_path):
    model = randomise(create_model("emca_eca_resnet18", 5, position="output"))
    path = saved(tmp_path, model.state_dict())
    loaded, spec = load_checkpoint(path, position="output")
    assert spec.options == {"position": "output"}
    assert_equal_logits(model, loaded)
    assert load_checkpoint(path)[1].options == {}


def test_released_training_script(tmp_path):
    import torch

    model = randomise(create_model("pkcam_eca_resnet50", 11))
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9).state_dict()
    path = saved(
        tmp_path,
        {"epoch": 90, "arch": "resnet50", "state_dict": state, "best_acc1": torch.tensor(75.0), "optimizer": optimizer},
        "model_best.pth.tar",
    )
    loaded, spec = load_checkpoint(path)
    assert (spec.arch, spec.num_classes, spec.layout) == ("pkcam_eca_resnet50", 11, "pkcam")
    assert_equal_logits(model, loaded)


def test_safetensors_in_half_precision(tmp_path):
    import torch
    from safetensors.torch import save_file

    model = randomise(create_model("emca_eca_resnet18", 10))
    half = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    path = tmp_path / "model.safetensors"
    save_file(half, path, metadata={"arch": "emca_se_resnet50"})  # a wrong hint must not matter
    loaded, spec = load_checkpoint(path)
    assert (spec.arch, spec.options) == ("emca_eca_resnet18", {})
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    model.load_state_dict(half)
    assert_equal_logits(model, loaded)


def test_counters_of_batch_norm_may_be_missing(tmp_path):
    model = randomise(create_model("resnet18", 10))
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    loaded, _ = load_checkpoint(saved(tmp_path, state))
    assert_equal_logits(model, loaded)


def test_loaded_weights_do_not_depend_on_the_file(tmp_path):
    from safetensors.torch import save_file

    model = randomise(create_model("emca_eca_resnet18", 10))
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    loaded, _ = load_checkpoint(path)
    with path.open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\xff" * 1_000_000)
    assert_equal_logits(model, loaded)


def test_a_wanted_architecture_is_checked(tmp_path):
    path = saved(tmp_path, create_model("emca_eca_resnet18", 10, blocks_per_stage=1).state_dict())
    assert load_checkpoint(path, "emca_eca_resnet18")[1].options == {"blocks_per_stage": 1}
    with refusing(CheckpointError, path, " eca_resnet18", "emca_eca_resnet18", "blocks_per_stage=1") as caught:
        load_checkpoint(path, "eca_resnet18")
    assert "--arch emca_eca_resnet18" in caught.value.remedy
    with pytest.raises(UnknownNameError):
        load_checkpoint(path, "resnet19")


def test_public_name(tmp_path):
    path = saved(tmp_path, create_model("resnet18", 2).state_dict())
    assert emca_deploy.load_checkpoint(str(path))[1].num_classes == 2
