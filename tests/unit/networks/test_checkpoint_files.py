"""Reading tensors from valid, damaged and malicious files."""

import argparse
import contextlib
import os
import pickle
import zipfile

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.checkpoint_files.opening import open_checkpoint
from emca_deploy.checkpoint_files.stored import TensorProblem
from emca_deploy.errors import CheckpointError

NAMES = {"conv.weight", "bn.num_batches_tracked"}


@pytest.fixture
def state():
    import torch

    return {"conv.weight": torch.arange(12.0).reshape(3, 4), "bn.num_batches_tracked": torch.tensor(7)}


def write(tmp_path, value, name="a.pth", **options):
    import torch

    path = tmp_path / name
    torch.save(value, path, **options)
    return path


def read_tensors(path):
    """Every tensor of the file by its full name; a dictionary around them is part of the name."""
    with open_checkpoint(path) as file:
        return {name: tensor.load() for name, tensor in file.tensors.items()}


def assert_state(read, state, prefix=""):
    import torch

    assert read.keys() == {prefix + key for key in state}
    assert all(torch.equal(read[prefix + key], state[key]) for key in state)


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.pth.tar", "a.bin", "a"])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves(tmp_path, name, zipped, state):
    assert_state(read_tensors(write(tmp_path, state, name, _use_new_zipfile_serialization=zipped)), state)


@pytest.mark.parametrize("name", ["a.safetensors", "misnamed.pth"])
def test_safetensors(tmp_path, name, state):
    from safetensors.torch import save_file

    save_file(state, tmp_path / name, metadata={"arch": "resnet18"})
    assert_state(read_tensors(tmp_path / name), state)
    with open_checkpoint(tmp_path / name) as file:
        assert file.arch == "resnet18"


@pytest.mark.parametrize("length", [0x180, 0x280, 0x7B20])
def test_safetensors_whose_length_looks_like_a_pickle_or_an_index(tmp_path, length, state):
    from safetensors.torch import save_file

    def padded(characters):
        save_file(state, tmp_path / "a.safetensors", metadata={"note": "x" * characters})
        return int.from_bytes((tmp_path / "a.safetensors").read_bytes()[:8], "little")

    assert padded(length - padded(0)) == length
    assert_state(read_tensors(tmp_path / "a.safetensors"), state)


@pytest.mark.parametrize("container", ["state_dict", "model", "ema", "net"])
def test_names_say_the_containers_and_everything_beside_is_found(tmp_path, container, state):
    import torch

    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    checkpoint = {"epoch": 3, "optimizer": optimizer, container: state, "args": argparse.Namespace(lr=0.1), "note": "x"}
    with open_checkpoint(write(tmp_path, checkpoint)) as file:
        own = {name: file.containers[name] for name in file.tensors if name.startswith(container)}
        assert own == {f"{container}.{key}": len(container) + 1 for key in NAMES}
        assert set(file.tensors) - set(own) == {"optimizer.state.0.momentum_buffer"}
        assert file.inert == {"argparse.Namespace"}


def test_containers_that_contain_themselves_end(tmp_path):
    loop = {"epoch": 1}
    loop["model"] = loop
    with refusing(CheckpointError, tmp_path):
        read_tensors(write(tmp_path, loop))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_become_float32(tmp_path, dtype):
    import torch

    read = read_tensors(write(tmp_path, {"a": torch.tensor([1.5, -2.0], dtype=getattr(torch, dtype)), "n": torch.tensor([3])}))
    assert read["a"].dtype == torch.float32
    assert read["a"].tolist() == [1.5, -2.0]
    assert read["n"].dtype == torch.int64


def test_parameters_and_strided_tensors(tmp_path):
    import torch
    from torch import nn

    parameter = nn.Parameter(torch.arange(6.0).reshape(2, 3))
    read = read_tensors(write(tmp_path, {"a": parameter, "b": parameter.detach().t()}))
    assert not read["a"].requires_grad
    assert read["b"].is_contiguous()
    assert read["b"].tolist() == [[0, 3], [1, 4], [2, 5]]


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert str(path) in caught.value.problem
    assert caught.value.remedy
    assert len(caught.value.problem) < len(str(path)) + 250
    return caught.value.problem + " | " + caught.value.remedy


class Hostile:
    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_does_not_run(tmp_path, zipped, state):
    import torch

    target = tmp_path / "pwned"
    path = write(tmp_path, {"state_dict": state, "extra": Hostile(target)}, _use_new_zipfile_serialization=zipped)
    said = refusal(path)
    assert "mkdir" in said
    assert "was not loaded" in said
    assert not target.exists()
    torch.load(path, weights_only=False)  # the file does run code when it is unpickled
    assert target.exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_plain_pickle_does_not_run(tmp_path, protocol):
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps(Hostile(tmp_path / "pwned"), protocol))
    refusal(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_module_is_read_like_its_state_dict(tmp_path, zipped):
    import torch
    from torch import nn

    module = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Sequential(nn.BatchNorm2d(3)))
    read = read_tensors(write(tmp_path, {"model": module}, _use_new_zipfile_serialization=zipped))
    assert read.keys() == {f"model.{key}" for key in module.state_dict()}
    assert all(torch.equal(read[f"model.{key}"], value) for key, value in module.state_dict().items())


def test_a_plain_pickle_is_refused(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": np.zeros(3)}))
    assert "plain pickle" in refusal(path)


def test_missing_folder_empty_and_unreadable(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.pth")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "empty.pth").touch()
    assert "is empty" in refusal(tmp_path / "empty.pth")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    assert "cannot be read" in refusal(tmp_path / "loop.pth")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_truncated(tmp_path, zipped, share):
    import torch

    path = write(tmp_path, {"a": torch.randn(4000), "b": torch.randn(500)}, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "is truncated" in refusal(path) or not zipped


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.99])
def test_truncated_safetensors(tmp_path, share):
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    save_file({"a": torch.randn(4000)}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "truncated" in refusal(path) or share < 0.01


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("zipped", [True, False])
def test_flipped_bytes_never_escape_as_another_error(tmp_path, seed, zipped, state):
    path = write(tmp_path, state, _use_new_zipfile_serialization=zipped)
    generator = np.random.default_rng(seed)
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    places = generator.integers(0, len(content), 12)
    content[places] = generator.integers(0, 256, 12)
    path.write_bytes(content.tobytes())
    with contextlib.suppress(CheckpointError):  # or no error: a flipped bit in padding or in a value may be undetectable
        read_tensors(path)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(99), b"hello world " * 9, b"\x08\x07\x12\x07pytorch" * 9])
def test_alien_bytes(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    assert "neither a PyTorch nor a safetensors checkpoint" in refusal(path)


def test_files_that_only_point_at_a_checkpoint(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 46\n")
    assert "git lfs pull" in refusal(path)


def test_other_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("image.txt", "no tensors")
    assert "is a zip archive" in refusal(tmp_path / "a.zip")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_read_like_its_state_dict_unless_it_is_frozen(tmp_path):
    import torch
    from torch import nn

    module = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Sequential(nn.BatchNorm2d(3))).eval()
    script = torch.jit.trace(module, torch.zeros(1, 2, 4, 4))
    script.save(tmp_path / "script.pt")
    read = read_tensors(tmp_path / "script.pt")
    assert read.keys() == module.state_dict().keys()
    assert all(torch.equal(read[key], value) for key, value in module.state_dict().items())
    torch.jit.freeze(script).save(tmp_path / "frozen.pt")
    assert "TorchScript" in refusal(tmp_path / "frozen.pt")


def test_an_exported_program_is_refused(tmp_path):
    import torch
    from torch import nn

    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), tmp_path / "program.pt2")
    assert "torch.export" in refusal(tmp_path / "program.pt2")


@pytest.mark.parametrize("value", [{}, {"epoch": 3, "lr": 0.1}, {"state_dict": {}}])
def test_no_tensors(tmp_path, value):
    assert "no tensors" in refusal(write(tmp_path, value))


def test_no_dictionary(tmp_path):
    import torch

    for value in (torch.zeros(3), [torch.zeros(3)], 5):
        assert "not a dictionary of tensors" in refusal(write(tmp_path, value))


def problem(tmp_path, tensor):
    with open_checkpoint(write(tmp_path, {"a": tensor})) as file, pytest.raises(TensorProblem) as caught:
        file.tensors["a"].load()
    return str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_numbers_that_are_none(tmp_path, bad, dtype):
    import torch

    assert "NaN or infinity" in problem(tmp_path, torch.tensor([1.0, bad], dtype=getattr(torch, dtype)))


def test_double_precision_that_float32_cannot_hold(tmp_path):
    import torch

    assert "NaN or infinity" in problem(tmp_path, torch.tensor([1e300], dtype=torch.float64))


def test_extraordinary_tensors(tmp_path):
    import torch

    assert "not an ordinary tensor" in problem(tmp_path, torch.zeros(2, dtype=torch.complex64))
    assert "not an ordinary tensor" in problem(tmp_path, torch.eye(3).to_sparse())
    assert "not an ordinary tensor" in problem(tmp_path, torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))
    assert "a shape but not its values" in problem(tmp_path, torch.zeros(3, device="meta"))


def test_a_few_bytes_that_claim_to_be_a_terabyte_cost_nothing_until_they_are_loaded(tmp_path):
    import torch

    with open_checkpoint(write(tmp_path, {"a": torch.zeros(1).expand(1 << 38)})) as file:
        assert file.tensors["a"].shape == (1 << 38,)
        assert file.tensors["a"].span == 1
