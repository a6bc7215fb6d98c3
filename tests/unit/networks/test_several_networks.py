"""Checkpoints with two networks: detecting the moving average and choosing the one to load."""

import re

import pytest

from emca_deploy.checkpoint_files.opening import open_checkpoint
from emca_deploy.networks.networks import find_networks
from zoo.checkpoints import assert_loads, numbered, prefixed, refused, saved


def test_several_networks_need_a_choice_that_the_error_names(folder):
    student, teacher = numbered(start=1), numbered("resnet34", start=500)
    path = saved(folder, {"state_dict": prefixed("student.", student) | prefixed("teacher.net.", teacher)})
    error = refused(path)
    assert "student" in error.problem
    assert "resnet34" in error.problem
    choices = re.findall(r"--prefix (\S+?)(?:,|$)", error.remedy)
    assert sorted(choices) == ["student", "teacher.net"]
    assert assert_loads(path, student, prefix="student").arch == "resnet18"
    assert assert_loads(path, teacher, prefix="teacher.net").arch == "resnet34"
    assert "student" in refused(path, prefix="pupil").remedy


def test_one_network_under_two_names_is_one(folder):
    state = numbered()
    tied = prefixed("model.", state) | prefixed("net.", state)
    assert_loads(saved(folder, tied), state)
    separate = {name: value.clone() for name, value in tied.items()}
    assert_loads(saved(folder, separate), state)


def five():
    import torch

    return torch.tensor(5)


AVERAGED = {
    "timm": lambda plain, average: {"state_dict": plain, "state_dict_ema": average, "arch": "resnet18"},
    "torchvision": lambda plain, average: {
        "model": plain,
        "model_ema": {"n_averaged": five()} | prefixed("module.", average),
    },
    "swa": lambda plain, average: {"net": plain, "swa_model": {"n_averaged": five()} | prefixed("module.", average)},
    "ema-pytorch": lambda plain, average: prefixed("online_model.", plain) | prefixed("ema_model.", average),
    "lightning": lambda plain, average: {"current_model_state": plain, "state_dict": average, "averaging_state": {}},
    "mmengine": lambda plain, average: {
        "meta": {"epoch": 1}, "message_hub": {}, "ema_state_dict": prefixed("module.", plain), "state_dict": average
    },
    "callback": lambda plain, average: {"state_dict": plain, "callbacks": {"EMA": {"ema_state_dict": average}}},
}  # fmt: skip


@pytest.mark.parametrize("kind", AVERAGED)
def test_which_of_two_networks_is_the_average(folder, kind):
    plain, average = numbered(start=1), numbered(start=300)
    with open_checkpoint(saved(folder, AVERAGED[kind](plain, average))) as file:
        found = {
            network.average: file.tensors[network.names["stem.conv.weight"]].load()[0, 0, 0, 0] for network in find_networks(file)
        }
    assert found == {False: 1 / 1024, True: 300 / 1024}


def test_the_average_is_taken_by_default_and_the_plain_weights_when_asked_for(folder):
    plain, average = numbered(start=1), numbered(start=300)
    path = saved(folder, AVERAGED["timm"](plain, average))
    for options, state, weights in (
        ({}, average, "ema"),
        ({"weights": "ema"}, average, "ema"),
        ({"weights": "plain"}, plain, "plain"),
    ):
        source = assert_loads(path, state, **options).source
        assert (source.weights, source.both_weights) == (weights, True)


@pytest.mark.parametrize("names", [lambda name: name, lambda name: f"module.{name}"])
def test_an_average_of_parameters_only_has_the_statistics_of_the_plain_weights(folder, names):
    plain, average = numbered(start=1), numbered(start=300)
    parameters = {name: value for name, value in average.items() if not re.search(r"running_|num_batches", name)}
    path = saved(
        folder, {"model": plain, "ema": {"shadow": {names(name): value for name, value in parameters.items()}, "decay": 0.9}}
    )
    source = assert_loads(path, plain | parameters).source
    assert (source.weights, source.both_weights, source.statistics) == ("ema", True, "model.")
    assert assert_loads(path, plain, weights="plain").source.statistics is None


def test_weights_that_are_not_there_are_refused(folder):
    state = numbered()
    plain = saved(folder, state, "plain.pth")
    assert assert_loads(plain, state).source.weights == "plain"
    assert "--weights plain" in refused(plain, weights="ema").remedy
    average = saved(folder, {"ema": state}, "ema.pth")
    assert assert_loads(average, state).source.weights == "ema"
    assert "--weights ema" in refused(average, weights="plain").remedy
