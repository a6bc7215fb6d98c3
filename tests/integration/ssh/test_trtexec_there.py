"""`profile` on a machine without Python, by a stand-in for its trtexec."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from emca_deploy.cli import run

STAND_IN = Path(__file__).parents[2] / "unit" / "targets" / "trtexec"
TOOLS = ("sh", "cat", "mkdir", "rm", "mv", "sleep", "sha256sum", "cut", "wc", "tr", "touch", "env")


@pytest.fixture
def board(sshds, monkeypatch, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name))
    shutil.copy(STAND_IN / "options.json", folder)
    (folder / "behaviour.json").write_text(json.dumps({"version": "8502"}))
    (folder / "trtexec").write_text(f"#!{sys.executable} -SE\n{(STAND_IN / 'stand_in.py').read_text()}")
    (folder / "trtexec").chmod(0o755)
    found = sshds(environment={"PATH": str(folder)})
    monkeypatch.setenv("EMCA_DEPLOY_SSH_CONFIG", str(found.folder / "ssh_config"))
    monkeypatch.delenv("EMCA_DEPLOY_REMOTE_PYTHON", raising=False)
    return found


def test_trtexec_builds_and_times_over_there(board, model, capfd, tmp_path):
    words = ["profile", str(model), "--target", board.target, "--duration", "1", "--json", "--raw", str(tmp_path / "raw.npz")]
    assert run(words) == 0
    out, err = capfd.readouterr()
    document = json.loads(out)
    (result,) = document["results"]
    assert (result["artifact"], result["target"], result["backend"]) == (str(model), board.target, "tensorrt")
    assert result["samples"] == 400
    assert "no Python of use" in err
    assert run(words) == 0
    again = json.loads(capfd.readouterr().out)
    assert again["environment"]["ssh"]["sent_bytes"] < document["environment"]["ssh"]["sent_bytes"] - model.stat().st_size / 2
    board.wait_until_nothing_runs()
    assert not list((board.cache / "runs").iterdir())
    assert len(list((board.cache / "blobs").iterdir())) == 1


def test_another_backend_needs_a_python(board, model, capfd):
    assert run(["profile", str(model), "--target", board.target, "--backend", "openvino"]) == 3
    assert "only backend 'tensorrt' runs" in capfd.readouterr().err


def test_an_error_of_trtexec_names_the_file_of_here(board, model, capfd, tmp_path):
    from emca_deploy.artifacts import Manifest, write_manifest

    engine = tmp_path / "other.engine"
    engine.write_bytes(b"an engine")
    write_manifest(engine, Manifest("engine", "", "fp16", backend="onnxruntime"))
    assert run(["profile", str(engine), "--target", board.target]) == 2
    assert "is no engine of TensorRT" in capfd.readouterr().err
    (tmp_path / "bin" / "behaviour.json").write_text(json.dumps({"version": "8502", "bad_model": True}))
    assert run(["profile", str(model), "--target", board.target]) == 2
    err = capfd.readouterr().err
    assert f"{model}: trtexec cannot build it" in err
    assert not list((board.cache / "runs").iterdir())
