"""Networks inside training checkpoints: any prefix and container, heads beside the trunk, averages, and what lies beside.

Every tensor here holds one number of its own, repeated to its shape, so that files stay small and a swapped tensor shows.
"""

import argparse
import datetime
import enum
import functools
import json
import pathlib
import re
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusing

from emca_deploy.errors import CheckpointError
from emca_deploy.networks.checkpoint_files import list_shards, open_checkpoint
from emca_deploy.networks.checkpoints import load_checkpoint
from emca_deploy.networks.fitting import fit_network
from emca_deploy.networks.layouts import foreign_name, translate
from emca_deploy.networks.networks import find_networks
from emca_deploy.networks.registry import create_model


def numbered(arch="resnet18", classes=7, start=1):
    """Our state dict of `arch`: tensor number i holds (start + i) / 1024, which every float format here keeps."""

    import torch

    with torch.device("meta"):
        shapes = create_model(arch, classes).state_dict()
    return {
        name: torch.tensor((start + i) / 1024).expand(value.shape) if value.is_floating_point() else torch.tensor(3)
        for i, (name, value) in enumerate(shapes.items())
    }


def torchvision(state):
    return {foreign_name(name, "torchvision"): value for name, value in state.items()}


def hugging_face(state):
    return {
        ("classifier.1." + name[5:] if name.startswith("head.") else "resnet." + foreign_name(name, "huggingface")): value
        for name, value in state.items()
    }


def mmpretrain(state):
    return {("head." if name.startswith("fc.") else "backbone.") + name: value for name, value in torchvision(state).items()}


def sequential(state):
    return {
        ("fc." + name[5:] if name.startswith("head.") else "features." + foreign_name(name, "sequential")): value
        for name, value in state.items()
    }


def dropout_head(state):
    return {re.sub(r"^fc\.", "fc.1.", name): value for name, value in torchvision(state).items()}


LAYOUTS = {
    "native": dict,
    "torchvision": torchvision,
    "hugging face": hugging_face,
    "mmpretrain": mmpretrain,
    "sequential": sequential,
    "dropout": dropout_head,
}


def saved(folder, value, name="a.pth", **options):
    import torch

    path = folder / name
    torch.save(value, path, **options)
    return path


def assert_loads(path, state, **options):
    import torch

    module, spec = load_checkpoint(path, **options)
    loaded = module.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            assert torch.equal(loaded[name], value), name
    return spec


def refused(path, **options):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, **options)
    assert str(path) in caught.value.problem
    assert caught.value.remedy
    return caught.value


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("wrapped")


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
    """A class of the training code, which must never be made again."""

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


# Two networks in one file.


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


# Networks that are others.


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


# Shards.


def sharded(folder, state, shards=3, ending=".safetensors"):
    import torch
    from safetensors.torch import save_file

    contiguous = {name: value.clone() for name, value in state.items()}
    names = sorted(contiguous)
    weight_map = {}
    for number in range(shards):
        part = {name: contiguous[name] for name in names[number::shards]}
        file = f"model-{number + 1:05}-of-{shards:05}{ending}"
        if ending == ".safetensors":
            save_file(part, folder / file)
        else:
            torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = folder / f"model{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_shards_load_by_their_index_also_through_links(tmp_path, ending):
    (blobs, snapshot) = (tmp_path / "blobs", tmp_path / "snapshot")
    blobs.mkdir()
    snapshot.mkdir()
    state = numbered()
    index = sharded(blobs, hugging_face(state), ending=ending)
    for number, file in enumerate(sorted(blobs.iterdir())):  # as in the cache of Hugging Face
        target = file.rename(blobs / f"{number:064}")
        (snapshot / file.name).symlink_to(target)
    spec = assert_loads(snapshot / index.name, state)
    assert spec.layout == "huggingface"
    assert list_shards(snapshot / index.name) == sorted(snapshot.glob("model-*"))
    assert list_shards(next(snapshot.glob("model-*"))) == []
    assert "index.json" in refused(snapshot).remedy


def test_shards_that_are_missing_cut_or_elsewhere_are_refused(tmp_path):
    index = sharded(tmp_path, numbered())
    shard = tmp_path / "model-00002-of-00003.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    with refusing(CheckpointError, shard):
        load_checkpoint(index)
    shard.unlink()
    assert shard.name in refused(index).problem
    for place in ("../x.safetensors", "/etc/passwd", "", ".."):
        index.write_text(json.dumps({"weight_map": {"a": place}}))
        assert "not a file of its own folder" in refused(index).problem
    index.write_text(json.dumps({"weight_map": {"x": index.name}}))
    assert "another index" in refused(index).problem
    assert "no index of shards" in refused(sharded_json(tmp_path, {"a": 1})).problem


def sharded_json(folder, value):
    path = folder / "config.json"
    path.write_text(json.dumps(value))
    return path


def test_a_shard_alone_says_that_the_rest_is_missing(tmp_path):
    sharded(tmp_path, numbered())
    assert "missing" in refused(tmp_path / "model-00001-of-00003.safetensors").problem
