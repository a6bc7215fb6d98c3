"""`deploy` on a remote machine: export and calibration are local; builds, measurement and validation are remote."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from emca_deploy._machine import find_gpus
from emca_deploy.artifacts import read_manifest
from emca_deploy.cli import run
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.targets.base import Part
from emca_deploy.targets.deployment import BuiltCandidate
from emca_deploy.targets.ssh import SshTarget


@pytest.fixture(autouse=True, scope="module")
def libraries():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("jinja2", reason="Jinja2 is not installed")


@pytest.fixture
def images(tmp_path):
    """Random images of the network's input size, with labels of ten classes."""
    path = tmp_path / "images.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    np.savez(path, images=pixels, labels=np.arange(20) % 10)
    calibration = tmp_path / "calibration.npz"
    np.savez(calibration, images=pixels[::-1] // 2)
    return calibration, path


@pytest.fixture
def checkpoint(tmp_path, small_networks, lively_network):
    from safetensors.torch import save_file

    save_file(lively_network("resnet10").state_dict(), tmp_path / "net.safetensors")
    with small_networks():
        yield tmp_path / "net.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["{far}", "cpu,{far}"])
def test_a_checkpoint_is_deployed_over_there(far, checkpoint, images, tmp_path, capfd, targets):
    words = ["deploy", str(checkpoint), "--data", str(images[0]), "--val", str(images[1]), "-o", str(tmp_path / "out")]
    words += ["--targets", targets.format(far=far.target), "--backend", "onnxruntime", "--image-size", "32", "--arch", "resnet10"]
    words += ["--samples", "4", "--recover", "none", "--duration", "0.5", "--threads", "1", "--json"]
    assert run(words) == 0, capfd.readouterr().err
    report = json.loads(capfd.readouterr().out)
    both = "cpu" in targets
    remote = ["onnxruntime fp32", "onnxruntime int8"]
    if both:
        assert [one["name"] for one in report["candidates"]] == [*remote, *(f"{name} on {far.target}" for name in remote)]
    else:
        assert [one["name"] for one in report["candidates"]] == remote
        assert report["candidates"][1]["speedup_ci95"] is not None
        assert report["environment"]["ssh"]["destination"] == far.target
    there = report["candidates"][-1]
    assert there["latency"]["target"] == far.target
    assert there["accuracy"]["samples"] == 20
    assert (there["speedup_ci95"] is None) == both  # candidates on different machines cannot be interleaved
    (engine,) = (tmp_path / "out").glob("*127.0.0.1*-int8.ort.onnx")
    manifest = read_manifest(engine)
    assert (manifest.backend, manifest.details["built_on"]) == ("onnxruntime", far.target)
    assert (tmp_path / "out" / "report.html").is_file()
    far.wait_until_nothing_runs()


@pytest.mark.skipif(bool(find_gpus()), reason="needs a machine without a GPU")
def test_what_a_board_leaves_out_is_said_with_every_result(sshds, remote_python, model, tmp_path, monkeypatch):
    board = shutil.copytree(Path(__file__).parents[2] / "data/boards/nano", tmp_path / "board")
    far = sshds(environment={"EMCA_DEPLOY_BOARD_ROOT": str(board)})
    monkeypatch.setenv("EMCA_DEPLOY_SSH_CONFIG", str(far.folder / "ssh_config"))
    monkeypatch.setenv("EMCA_DEPLOY_REMOTE_PYTHON", remote_python)
    target = SshTarget.parse(f"{far.target}/jetson")
    found = target.deployment()
    (note,) = found.notes
    spec = RunnerSpec("fp32", "", {"threads": 1}, str(model), "onnxruntime")
    report = target.measure([Part(target, found, (BuiltCandidate("fp32", model, spec),))], 0.2)
    assert note in report.results[0].warnings
