"""The bundled model in INT8 on another architecture: an aarch64 machine behind a real sshd (`scripts/aarch64_board.sh`)."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.cli import run

VARIABLE = "EMCA_DEPLOY_AARCH64_SSH_CONFIG"
TARGET = "ssh://board"
IMAGES = 50

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ssh_config() -> str:
    """The ssh configuration of the aarch64 machine."""
    config = os.environ.get(VARIABLE)
    if not config:
        pytest.skip(f"no aarch64 machine: scripts/aarch64_board.sh start FOLDER makes one; put its ssh_config into {VARIABLE}")
    return config


@pytest.fixture
def board(ssh_config: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The target of the aarch64 machine."""
    monkeypatch.setenv("EMCA_DEPLOY_SSH_CONFIG", ssh_config)
    monkeypatch.delenv("EMCA_DEPLOY_REMOTE_PYTHON", raising=False)
    return TARGET


@pytest.fixture(scope="module")
def int8_model(ssh_config: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled network, calibrated for ONNX Runtime."""
    pytest.importorskip("torch")
    from emca_deploy.data.bundled import BUNDLED_PREPROCESSING, bundled_calibration_images, bundled_checkpoint

    folder = tmp_path_factory.mktemp("int8")
    plain, model = folder / "bundled.onnx", folder / "bundled.int8.onnx"
    mean, std = (",".join(map(str, values)) for values in (BUNDLED_PREPROCESSING.mean, BUNDLED_PREPROCESSING.std))
    size = BUNDLED_PREPROCESSING.image_size, BUNDLED_PREPROCESSING.resize_size
    options = ["--image-size", str(size[0]), "--resize-size", str(size[1]), "--mean", mean, "--std", std]
    assert run(["export", str(bundled_checkpoint()), "-o", str(plain), *options]) == 0
    calibrate = [
        "calibrate",
        str(plain),
        "--data",
        str(bundled_calibration_images()),
        "--backend",
        "onnxruntime",
        "-o",
        str(model),
    ]
    assert run([*calibrate, "--samples", "100"]) == 0
    return model


def validated(model: Path, kept: Path, capsys: pytest.CaptureFixture[str], *target: str) -> tuple[dict[str, object], np.ndarray]:
    """Return the document of `validate` and the class of every image."""
    from emca_deploy.data.bundled import bundled_test_images

    capsys.readouterr()
    words = [
        "validate",
        str(model),
        "--data",
        str(bundled_test_images()),
        "--limit",
        str(IMAGES),
        "--logits",
        str(kept),
        "--json",
    ]
    code = run([*words, *target])
    out, err = capsys.readouterr()
    assert code == 0, err
    with np.load(kept, allow_pickle=False) as arrays:
        return json.loads(out), arrays["logits"].argmax(axis=1)


def test_int8_gives_the_same_classes_as_here(
    board: str, int8_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, classes_there = validated(int8_model, tmp_path / "there.npz", capsys, "--target", board)
    here, classes_here = validated(int8_model, tmp_path / "here.npz", capsys)
    assert there["samples"] == here["samples"] == IMAGES == len(classes_there)
    assert classes_there.tolist() == classes_here.tolist()
    assert there["top1"] == here["top1"] > 80


def test_a_named_device_says_that_it_is_aarch64(
    board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", str(tmp_path / "devices.toml"))
    assert run(["devices", "add", "arm", board]) == 0
    assert run(["devices", "check", "arm", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["devices"]
    assert (found["usable"], found["machine"], found["board"]) == (True, "aarch64", None)
    assert "onnxruntime" in found["backends"]
