"""Fixtures of the command-line tests: a small network in every form, images, and the form of a refusal."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.artifacts import manifest_path
from emca_deploy.cli import run

SIZE, CLASSES, ARCH, SMALL = 32, 3, "emca_eca_resnet18", "emca_eca_resnet10"


def save_images(folder: Path, count: int, seed: int = 0) -> Path:
    """Write PNGs of 40x40 noise."""
    from PIL import Image

    folder.mkdir(parents=True)
    for index, pixels in enumerate(np.random.default_rng(seed).integers(0, 256, (count, 40, 40, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return a function that writes plan.toml into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "plan.toml").write_text(text)

    return write


@pytest.fixture(autouse=True, scope="module")
def exports(kept_exports):
    """An equal network is exported once; commands with a process of their own export theirs themselves."""


@pytest.fixture(scope="session")
def files():
    """Return a function that lists all files under a folder, including hidden ones."""

    def names(folder: Path) -> set[str]:
        return {str(Path(root, name).relative_to(folder)) for root, _, found in os.walk(folder) for name in found}

    return names


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="session")
def weights(lively_network):
    """A random network's state dict, with batch norms that do something."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lively_network(ARCH, CLASSES, seed=1).state_dict()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoint(shared, weights):
    """A .safetensors file."""
    from safetensors.torch import save_file

    path = shared / "weights.safetensors"
    save_file(weights, path)
    return path


@pytest.fixture(scope="session")
def plain_weights():
    """State dict of a random network without attention, with a third of the nodes, for tests that do not concern attention."""
    import torch

    from emca_deploy.networks.registry import create_model

    torch.manual_seed(1)
    return create_model("resnet18", CLASSES).state_dict()


@pytest.fixture(scope="session")
def plain_checkpoint(shared, plain_weights):
    """A .safetensors file of `plain_state`."""
    from safetensors.torch import save_file

    path = shared / "plain.safetensors"
    save_file(plain_weights, path)
    return path


@pytest.fixture(scope="session")
def training_checkpoint(shared, weights):
    """The file that a training script saves of a DataParallel network."""
    import torch

    path = shared / "checkpoint.pth.tar"
    state = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save({"epoch": 3, "arch": "resnet18", "state_dict": state, "best_acc1": torch.tensor(50.0)}, path)
    return path


@pytest.fixture(scope="session")
def trained_model(shared, request, once):
    """The exported checkpoint with a dynamic batch; exported once for all processes of a run."""

    def export(folder):
        from emca_deploy.api import export  # noqa: F401  what runs

        words = ["-o", str(folder / "trained.onnx"), "--image-size", str(SIZE), "--resize-size", "40"]
        assert run(["export", str(request.getfixturevalue("training_checkpoint")), *words]) == 0

    for path in once("cli-trained", export, keep=True).iterdir():
        (shared / path.name).hardlink_to(path)
    return shared / "trained.onnx"


@pytest.fixture(scope="session")
def small_checkpoint(shared, lively_network):
    """State dict of the small network in `model`."""
    import torch

    torch.save(lively_network(SMALL, CLASSES, seed=1).state_dict(), shared / "small.pth")
    return shared / "small.pth"


@pytest.fixture(scope="session")
def model(shared, request, small_networks, once):
    """An exported small network of the family with a dynamic batch; exported once for all processes of a run."""

    def export(folder):
        from emca_deploy.api import export  # noqa: F401  what runs

        words = ["-o", str(folder / "model.onnx"), "--image-size", str(SIZE), "--resize-size", "40"]
        with small_networks():
            assert run(["export", str(request.getfixturevalue("small_checkpoint")), *words]) == 0

    for path in once("cli-model", export, keep=True).iterdir():
        (shared / path.name).hardlink_to(path)
    return shared / "model.onnx"


@pytest.fixture(scope="session")
def alone():
    """Return a function that copies a model and its manifest into a new folder, where its tables will be."""

    def put(model: Path, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        for path in (model, manifest_path(model)):
            (folder / path.name).hardlink_to(path)
        return folder / model.name

    return put


@pytest.fixture
def own(model, tmp_path, alone):
    return alone(model, tmp_path / "model")


@pytest.fixture(scope="session")
def deep_model(random_model):
    """The 18-layer network of the family with random weights, for tests that need more than one block per stage."""
    return random_model(ARCH, SIZE)


@pytest.fixture(scope="session")
def flat_images(shared):
    """Ten images without labels."""
    return save_images(shared / "flat", 10)


@pytest.fixture(scope="session")
def labelled_images(shared):
    """Four images of each of the network's classes."""
    for label in range(CLASSES):
        save_images(shared / "labelled" / str(label), 4, seed=label + 1)
    return shared / "labelled"


@pytest.fixture
def refused(capsys):
    """Return a function that runs a command line that must fail and returns its output."""

    def check(*arguments: object, code: int = 2) -> str:
        capsys.readouterr()
        assert run([str(argument) for argument in arguments]) == code
        out, err = capsys.readouterr()
        assert out == ""
        lines = err.splitlines()
        assert len(lines) == 2, err
        assert lines[0].startswith("error: ")
        assert lines[1].startswith("  try: ")
        assert len(lines[1]) > len("  try: ")
        assert "Traceback" not in err
        return err

    return check


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"cannot mount a small file system here: {getattr(exc, 'stderr', None) or exc}".strip())
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def full_disk(small_disk):
    """A full file system."""
    with suppress(OSError), (small_disk / "filling").open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass
    return small_disk
