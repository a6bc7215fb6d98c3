"""A checkpoint on a remote machine, run by its PyTorch with the networks in the agent's file."""

import json
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.cli import run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A ResNet-18 of three classes."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from emca_deploy.networks.registry import create_model

    path = tmp_path_factory.mktemp("checkpoint") / "weights.safetensors"
    torch.manual_seed(0)
    save_file(create_model("resnet18", 3).state_dict(), path)
    return path


def document_of(capfd, *words):
    code = run([*map(str, words), "--json"])
    out, err = capfd.readouterr()
    assert code == 0, err
    return json.loads(out)


@pytest.fixture(scope="module")
def sharded(checkpoint):
    """The same weights in two files, with their index."""
    from safetensors.torch import load_file, save_file

    tensors = list(load_file(checkpoint).items())
    weight_map = {}
    for shard, part in (("part-1.safetensors", tensors[::2]), ("part-2.safetensors", tensors[1::2])):
        save_file(dict(part), checkpoint.parent / shard)
        weight_map |= dict.fromkeys((name for name, _ in part), shard)
    index = checkpoint.parent / "weights.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


@pytest.mark.slow  # the test below loads the same file
def test_profile_of_one_in_two_files(far, sharded, capfd):
    quick = ["--duration", "0.2", "--max-duration", "0.2", "--warmup", "0", "--processes", 1, "--no-telemetry"]
    (result,) = document_of(capfd, "profile", sharded, "--target", far.target, *quick)["results"]
    assert (result["artifact"], result["backend"], result["target"]) == (str(sharded), "torch", far.target)
    far.wait_until_nothing_runs()


@pytest.mark.usefixtures("in_threads")
def test_validate_says_what_it_says_here(far, sharded, capfd, tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(5) % 3)
    asked = ["validate", sharded, "--data", tmp_path / "images.npz", "--threads", 1, "--image-size", 32, "--resize-size", 36]
    there, here = (document_of(capfd, *asked, *where) for where in (["--target", far.target], []))
    for document in (there, here):
        document.pop("images_per_s")
    assert there == here


@pytest.mark.slow  # what is measured is the same as here
def test_frames_at_a_rate_are_measured_there(far, sharded, capfd):
    paced = ["--scenario", "paced", "--rate", "20", "--deadline", "1s", "--duration", "0.5", "--warmup", "0", "--no-telemetry"]
    (result,) = document_of(capfd, "profile", sharded, "--target", far.target, *paced)["results"]
    (rate,) = result["paced"]
    assert (rate["rate_per_s"], rate["misses"]["deadline_ms"]) == (20, 1000)
    assert rate["frames"] >= 5
    far.wait_until_nothing_runs()
