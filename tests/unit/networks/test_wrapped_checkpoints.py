"""Networks inside training checkpoints: any prefix and container, and objects next to the tensors.

Every tensor repeats one number of its own: files stay small, and a swapped tensor is detected.
"""

import argparse
import datetime
import enum
import functools
import pathlib
import re
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emca_deploy.checkpoint_files.opening import open_checkpoint
from emca_deploy.networks.checkpoints import load_checkpoint
from emca_deploy.networks.fitting import fit_network
from emca_deploy.networks.layouts import translate
from emca_deploy.networks.networks import find_networks
from emca_deploy.networks.registry import create_model
from zoo.checkpoints import LAYOUTS, assert_loads, numbered, prefixed, saved

parts = st.one_of(
    st.sampled_from(["module", "model", "_orig_mod", "backbone", "net", "0", "encoder", "student", "_fsdp_wrapped_module"]),
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
)
containers = st.lists(st.sampled_from(["state_dict", "model", "net", "module", "weights", "checkpoint"]), max_size=3)


wrappings = st.fixed_dictionaries(
    {
        "layout": st.sampled_from(sorted(LAYOUTS)),
        "arch": st.sampled_from(["resnet18", "emca_eca_resnet18", "se_resnet18", "srm_resnet18"]),
        "prefix": st.lists(parts, max_size=3),
        "container": containers,
        "zipped": st.booleans(),
        "beside": st.booleans(),
    }
)


def wrapped(folder, wrapping):
    """Write a checkpoint; return its path and the network's own state dict."""

    import torch

    state = numbered(wrapping["arch"] if wrapping["layout"] == "native" else "resnet18")
    value = prefixed("".join(f"{part}." for part in wrapping["prefix"]), LAYOUTS[wrapping["layout"]](state))
    if wrapping["beside"]:
        value |= {"criterion.weight": torch.ones(7), "val_acc.tp": torch.zeros(7, dtype=torch.int64)}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(7, 512)}}, "lr": np.float64(0.1)}
    for key in reversed(wrapping["container"]):
        value = {key: value, "epoch": 3, "optimizer": optimizer}
    return saved(folder, value, _use_new_zipfile_serialization=wrapping["zipped"]), state


@settings(max_examples=15, deadline=None)
@given(wrapping=wrappings)
def test_any_wrapping_of_any_layout_is_found_with_every_tensor_in_its_place(folder, wrapping):
    path, state = wrapped(folder, wrapping)
    with open_checkpoint(path) as file:
        (network,) = find_networks(file)
        assert fit_network(file, network, arch=None, position="residual", trusted=False).classes == 7
        originals = translate({name: file.tensors[full].outline() for name, full in network.names.items()}, path).originals
        for name, value in state.items():
            stored = file.tensors[network.names[originals[name]]]
            first = np.frombuffer(stored.storage.read(0, 4), np.float32)[0]
            assert not value.is_floating_point() or first == value.flatten()[0]
        assert network.container == "".join(f"{key}." for key in wrapping["container"])
        assert network.prefix.startswith("".join(f"{part}." for part in wrapping["prefix"]))


@settings(max_examples=4, deadline=None)
@given(wrapping=wrappings)
def test_any_wrapping_loads_to_equal_tensors_and_says_what_lay_beside(folder, wrapping):
    path, state = wrapped(folder, wrapping)
    spec = assert_loads(path, state)
    assert (spec.arch, spec.num_classes) == (wrapping["arch"] if wrapping["layout"] == "native" else "resnet18", 7)
    assert ("criterion.weight" in spec.source.left_out) == wrapping["beside"]
    assert ("numpy.dtype" in spec.source.not_loaded) == bool(wrapping["container"])


class StateDict(OrderedDict):
    """A dictionary of the training code, such as those of mmengine and fairseq."""


class Phase(enum.Enum):
    TRAIN = 1


class Settings:
    """A class of the training code, which must never be instantiated."""

    def __init__(self):
        self.lr = 0.1

    def __setstate__(self, state):
        raise AssertionError("was called")


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_tensors_stay_inert(folder, zipped, monkeypatch):
    import importlib

    import torch
    from torch import nn

    state = numbered()
    value = {
        "model": StateDict(state),
        "best": np.float64(76.1),
        "history": np.arange(3.0),
        "args": argparse.Namespace(lr=0.1, output=pathlib.PurePosixPath("/runs/1")),
        "opt": defaultdict(dict),
        "settings": Settings(),
        "config": StateDict(lr=0.1, nested=StateDict(a=[1, 2])),
        "phase": Phase.TRAIN,
        "when": datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
        "loss": functools.partial(torch.nn.functional.cross_entropy, label_smoothing=0.1),
        "others": [
            Decimal("1.5"),
            1 << 300,
            1j,
            range(3),
            slice(1),
            {1, 2},
            frozenset("a"),
            bytearray(b"x"),
            deque([1]),
            b"y" * 9,
        ],
        "types": (torch.float16, nn.Linear, np.float32, Settings),
        "lengths": Counter("abca"),
        "device": torch.device("cpu"),
        "size": torch.Size([1, 2]),
        "rng": torch.get_rng_state(),
    }
    path = saved(folder, value, _use_new_zipfile_serialization=zipped)
    imported = []
    monkeypatch.setattr(importlib, "import_module", imported.append)
    source = assert_loads(path, state).source
    assert {"argparse.Namespace", "numpy.dtype"} <= set(source.not_loaded)
    assert any(name.endswith(".Settings") for name in source.not_loaded)
    assert any(name.startswith("pathlib.") for name in source.not_loaded)
    assert source.left_out == {"rng": 1}


def test_a_whole_module_loads_without_its_class(folder):
    import torch

    module = create_model("emca_eca_resnet18", 3)
    path = saved(folder, {"ema": module, "epoch": 1})
    loaded, spec = load_checkpoint(path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in module.state_dict().items())
    assert (spec.source.container, spec.source.prefix, spec.source.weights) == ("ema", "", "ema")


def test_names_of_a_compiled_part_are_those_of_the_network(folder):
    state = numbered()
    value = {re.sub(r"^stage(\d)\.", r"stage\1._orig_mod.", name): tensor for name, tensor in state.items()}
    assert_loads(saved(folder, value), state)


def test_profilers_counters_are_left_out(folder):
    import torch

    state = numbered()
    counters = {f"{name.rpartition('.')[0]}.total_ops": torch.zeros(1, dtype=torch.float64) for name in state}
    spec = assert_loads(saved(folder, state | counters | {"total_params": torch.zeros(1)}), state)
    assert sum(spec.source.left_out.values()) == len(counters) + 1
