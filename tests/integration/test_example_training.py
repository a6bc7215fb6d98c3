"""The training example runs on noise images, and its checkpoint can be exported."""

import gzip
import json
import runpy
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.cli import run

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_fashion_mnist.py"

pytestmark = pytest.mark.slow


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write unsigned bytes in the format of MNIST files."""
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), compresslevel=1))


@pytest.fixture
def data(tmp_path):
    """The four files, with fewer images; each class has its own brightness."""
    folder = tmp_path / "data"
    folder.mkdir()
    random = np.random.default_rng(0)
    for split, count in (("train", 160), ("t10k", 40)):
        labels = np.arange(count) % 10
        images = np.clip(labels[:, None, None] * 25 + random.integers(-20, 20, (count, 28, 28)), 0, 255)
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", labels)
    return folder


@pytest.fixture
def train(monkeypatch):
    """Return a function that runs the example with some arguments."""

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, arguments)])
        runpy.run_path(str(EXAMPLE), run_name="__main__")

    return call


def test_it_trains_and_its_checkpoint_exports(train, data, tmp_path, capsys):
    output = tmp_path / "trained.safetensors"
    train("-o", output, "--data", data, "--limit", 256, "--schedule", "32x1", "--batch", 32)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("epoch 1 size 32 loss ")
    assert run(["export", str(output), "-o", str(tmp_path / "model.onnx"), "--image-size", "32", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["arch"], document["num_classes"]) == ("emca_eca_resnet18", 10)


def test_missing_data_and_too_few_images_are_said_plainly(train, data, tmp_path, capsys):
    for given, words in (
        (["--data", tmp_path / "nowhere"], "train-images-idx3-ubyte.gz"),
        (["--data", data, "--limit", 8, "--batch", 32], "--batch"),
        (["--data", data, "--schedule", "32by1"], "--schedule"),
    ):
        with pytest.raises(SystemExit, match="2"):
            train("-o", tmp_path / "x.safetensors", *given)
        assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "x.safetensors").exists()
