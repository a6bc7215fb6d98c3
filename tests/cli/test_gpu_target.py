"""`--target gpu` on a machine without a GPU, and what can be tested of a machine with one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emca_deploy._machine import find_gpus
from emca_deploy.api import doctor
from emca_deploy.api.doctor import gpu_failure
from emca_deploy.artifacts import Manifest, write_manifest
from emca_deploy.cli import run

no_gpu = pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here")


@pytest.fixture(autouse=True, scope="module")
def libraries():
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")


@no_gpu
@pytest.mark.parametrize("target", ["gpu", "gpu:0", "gpu:7"])
def test_profile_without_a_gpu(refused: Callable[..., str], model: Path, tmp_path: Path, target: str) -> None:
    said = refused("profile", model, "--target", target, "--json", "-o", tmp_path / "result.json", code=3)
    assert "nvidia-smi" in said
    assert list(tmp_path.iterdir()) == []


@no_gpu
def test_validate_without_a_gpu(refused: Callable[..., str], model: Path, labelled_images: Path) -> None:
    assert "target 'gpu:0'" in refused("validate", model, "--data", labelled_images, "--target", "gpu", code=3)


@no_gpu
def test_a_checkpoint_without_a_gpu(refused: Callable[..., str], checkpoint: Path) -> None:
    assert "no NVIDIA driver" in refused("profile", checkpoint, "--target", "gpu", code=3)


@pytest.mark.parametrize("target", ["gpu:x", "gpu:", "gpu:-1", "gpu:1234"])
def test_targets_that_name_no_gpu(refused: Callable[..., str], model: Path, target: str) -> None:
    assert f"'{target}'" in refused("profile", model, "--target", target)
    assert f"'{target}'" in refused("validate", model, "--data", "x", "--target", target)


def test_a_misspelled_target(refused: Callable[..., str], model: Path) -> None:
    assert "nearest: gpu" in refused("profile", model, "--target", "gpus")


def test_an_engine_for_gpus_on_the_processor(refused: Callable[..., str], tmp_path: Path) -> None:
    engine = tmp_path / "net.engine"
    engine.write_bytes(b"an engine")
    write_manifest(engine, Manifest("engine", "", "int8", "tensorrt-rtx"))
    assert "--target gpu" in refused("profile", engine)


@no_gpu
def test_doctor_knows_why_there_is_no_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "load_failure", lambda module: None)  # loading every library takes seconds
    failure = gpu_failure()
    assert failure is not None
    assert "no NVIDIA driver" in failure.problem
    assert run(["doctor", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)["backends"]["tensorrt-rtx"]
    assert not status["usable"]
    assert status["remedy"]


@no_gpu
@pytest.mark.parametrize(
    ("damage", "batch", "words"),
    [
        ("truncated", 1, "net.engine: "),
        ("no manifest", 1, "manifest"),
        ("none", 9, "1 to 8"),
        ("gone", 1, "net.engine: "),
    ],
)
def test_what_is_wrong_with_an_engine_comes_before_what_is_wrong_with_the_machine(
    refused: Callable[..., str], tmp_path: Path, labelled_images: Path, damage: str, batch: int, words: str
) -> None:
    engine = tmp_path / "net.engine"
    engine.write_bytes(b"an engine" * 1000)
    write_manifest(engine, Manifest("engine", "", "int8", "tensorrt-rtx", details={"tensorrt": {"batches": [1, 1, 8]}}))
    if damage == "truncated":
        engine.write_bytes(b"an engine" * 500)
    elif damage == "no manifest":
        (tmp_path / "net.engine.manifest.json").unlink()
    elif damage == "gone":
        engine.unlink()
    assert words in refused("profile", engine, "--target", "gpu", "--batch", batch)
    if batch == 1:  # validate runs any batch size that the engine supports
        assert words in refused("validate", engine, "--data", labelled_images, "--target", "gpu")
