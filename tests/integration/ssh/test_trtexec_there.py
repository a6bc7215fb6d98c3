"""`profile` and `build` on a board without Python, with a stand-in for its trtexec."""

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from emca_deploy.artifacts import read_manifest, sha256_file, write_manifest
from emca_deploy.cli import run
from emca_deploy.errors import InputError
from emca_deploy.machines.jetson.switch import FOLDER, LOCK, NOTE, hold_power_mode, is_held
from emca_deploy.remote import hold
from emca_deploy.requests import ProfileRequest
from emca_deploy.results.telemetry import total_power
from emca_deploy.targets.registry import parse


def done(request, progress=None):
    return parse(request.target).run(request, progress)


STAND_IN = Path(__file__).parents[2] / "unit" / "backends" / "tensorrt" / "tool"
BOARDS = Path(__file__).parents[2] / "data" / "boards"
TOOLS = (
    *("sh", "cat", "mkdir", "rm", "mv", "sleep", "sha256sum", "cut", "wc", "tr", "touch", "env", "od", "awk", "head"),
    *("find", "flock", "ls", "tail", "timeout", "dd", "uname", "sed", "dirname", "grep", "date"),
)


@pytest.fixture
def board(sshds, monkeypatch, tmp_path):
    """An Orin Nano Super at 15 W that has trtexec 8.5.2, and no Python."""
    folder, root = tmp_path / "bin", tmp_path / "board"
    folder.mkdir()
    shutil.copytree(BOARDS / "orin-nano-super", root)
    shutil.rmtree(root / "proc/device-tree", ignore_errors=True)
    (root / "proc/device-tree").unlink(missing_ok=True)
    (root / "proc/device-tree").symlink_to("../sys/firmware/devicetree/base")  # a kernel file that every board has
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name))
    shutil.copy(STAND_IN / "options.json", folder)
    (folder / "trtexec").write_text(f"#!{sys.executable} -SE\n{(STAND_IN / 'stand_in.py').read_text()}")
    (folder / "trtexec").chmod(0o755)
    path = f"{root}/usr/sbin:{root}/usr/bin:{folder}"
    found = sshds(environment={"PATH": path, "EMCA_DEPLOY_BOARD_ROOT": str(root)})
    monkeypatch.setenv("EMCA_DEPLOY_SSH_CONFIG", str(found.folder / "ssh_config"))
    monkeypatch.delenv("EMCA_DEPLOY_REMOTE_PYTHON", raising=False)
    wish(tmp_path)
    return found


def wish(folder, **behaviour):
    (folder / "bin" / "behaviour.json").write_text(json.dumps({"version": "8502", **behaviour}))


def mode_of(folder):
    return (folder / "board/var/lib/nvpmodel/status").read_text().strip()


def test_trtexec_builds_and_times_over_there(board, model, capfd, tmp_path):
    words = ["profile", str(model), "--target", board.target, "--duration", "1", "--json", "--raw", str(tmp_path / "raw.npz")]
    assert run(words) == 0
    out, err = capfd.readouterr()
    document = json.loads(out)
    (result,) = document["results"]
    assert (result["artifact"], result["target"], result["backend"]) == (str(model), board.target, "tensorrt")
    assert result["samples"] == 400
    assert "trtexec 8.5.2" in err
    assert any("the power mode is 15W, not MAXN_SUPER" in warning for warning in result["warnings"])
    assert document["environment"]["board"]["device"] == "orin-nano"
    assert [layer["name"] for layer in result["runtime"]["profile"]["layers"]] == ["stem.conv + stem.relu", "head"]
    assert run(words) == 0
    again = json.loads(capfd.readouterr().out)
    assert again["environment"]["ssh"]["sent_bytes"] < document["environment"]["ssh"]["sent_bytes"] - model.stat().st_size / 2
    board.wait_until_nothing_runs()
    assert not list((board.cache / "by-shell").iterdir())
    assert len(list((board.cache / "blobs").iterdir())) == 1


def test_another_backend_needs_a_python(board, model, capfd):
    assert run(["profile", str(model), "--target", board.target, "--backend", "openvino"]) == 3
    assert "backend 'tensorrt'" in capfd.readouterr().err


def test_an_error_of_trtexec_names_the_file_of_here(board, model, capfd, tmp_path):
    from emca_deploy.artifacts import Manifest, write_manifest

    engine = tmp_path / "other.engine"
    engine.write_bytes(b"an engine")
    write_manifest(engine, Manifest("engine", "", "fp16", backend="onnxruntime"))
    assert run(["profile", str(model), "--target", board.target, "--scenario", "paced", "--rate", "10"]) == 2
    assert "paced" in capfd.readouterr().err
    assert run(["profile", str(engine), "--target", board.target]) == 2
    assert "is no engine of TensorRT" in capfd.readouterr().err
    wish(tmp_path, bad_model=True)
    assert run(["profile", str(model), "--target", board.target]) == 2
    err = capfd.readouterr().err
    assert f"{model}: trtexec cannot build it" in err
    assert not list((board.cache / "by-shell").iterdir())


def test_an_engine_is_built_in_a_power_mode_and_comes_home(board, model, tmp_path, capfd):
    engine = tmp_path / "net.engine"
    words = ["build", str(model), "--backend", "tensorrt", "-o", str(engine), "--target", board.target]
    assert run([*words, "--power-mode", "maxn_super", "--batches", "1,2,8", "--json"]) == 0, capfd.readouterr().err
    assert engine.read_bytes() == b"an engine of 8502"
    assert json.loads(capfd.readouterr().out)["sha256"] == sha256_file(engine)
    manifest = read_manifest(engine)
    assert manifest.details["built_on"] == board.target
    assert manifest.details["machine"]["instruction_sets"] == ["sm_87"]
    assert manifest.details["board"]["power_mode"]["name"] == "MAXN_SUPER"
    assert mode_of(tmp_path) == "pmode:0000"
    assert (tmp_path / "board/var/recorded/asked").read_text().split() == ["2", "0"]
    # Like a DLA, which has no CUDA graphs.
    tensorrt = {**manifest.details["tensorrt"], "dla_core": 1}
    write_manifest(engine, replace(manifest, details={**manifest.details, "tensorrt": tensorrt}))
    profile = ["profile", str(engine), "--target", board.target, "--duration", "1", "--no-telemetry", "--json"]
    assert run([*profile, "--batch", "4"]) == 0
    assert json.loads(capfd.readouterr().out)["results"][0]["batch"] == 4
    given = json.loads((tmp_path / "bin/calls.txt").read_text().splitlines()[-1])
    assert {"--shapes=input:4x3x16x16", "--useDLACore=1"} <= set(given)
    assert "--useCudaGraph" not in given
    assert run([*profile, "--batch", "9"]) == 2
    assert "takes batches of 1 to 8, not 9" in capfd.readouterr().err
    for choice, words_ in (("7W", "needs a reboot"), ("FAST", "no power mode is called 'FAST'")):
        assert run([*words, "--power-mode", choice]) in (2, 3)
        assert words_ in capfd.readouterr().err
    assert run([*words, "--dla-core", "0"]) == 2
    assert "has no DLA" in capfd.readouterr().err
    assert mode_of(tmp_path) == "pmode:0000"
    board.wait_until_nothing_runs()
    assert not list((board.cache / "by-shell").iterdir())


def ask(board, *models, **options):
    return ProfileRequest(tuple(map(str, models)), target=board.target, duration_s=1.0, warmup_s=0.1, **options)


def test_a_cut_connection_costs_the_artifact_it_was_at_and_the_board_puts_its_mode_back(board, model, tmp_path):
    """Finished measurements are kept; the interrupted one is ended on the board and measured again."""
    other = tmp_path / "other.onnx"
    shutil.copy(model, other)
    wish(tmp_path, run_s=1.0)
    seen = []

    def cut_after_the_first(done, total):
        if (done, total) == (1, 2) and not seen:
            seen.append(mode_of(tmp_path))
            board.cut()

    report, raw = done(ask(board, model, other, power_mode="25W"), cut_after_the_first)
    assert seen == ["pmode:0001"]
    assert report.complete
    assert [result.artifact for result in report.results] == [str(model), str(other)] == [one.name for one in raw.candidates]
    assert total_power(report.results[0].telemetry)["tegrastats"].power_w == pytest.approx(4.824)
    board.wait_until_nothing_runs()
    assert mode_of(tmp_path) == "pmode:0000"
    assert not list((board.cache / "by-shell").iterdir())


def test_a_run_on_the_board_and_one_over_ssh_hold_the_same_lock(board, model, tmp_path, capfd, monkeypatch):
    """In either order, the second run is refused, and the power mode of the first one stays set."""
    root, seen = tmp_path / "board", []

    def from_the_board(done, total):
        if (done, total) == (1, 2) and not seen:
            seen.append(is_held(root))
            with pytest.raises(InputError), hold_power_mode("MAXN_SUPER", root):
                pass
            seen.append(mode_of(tmp_path))

    report, _ = done(ask(board, model, model, power_mode="25W"), from_the_board)
    assert seen == [True, "pmode:0001"]
    assert report.complete
    board.wait_until_nothing_runs()
    assert not is_held(root)
    assert [path.name for path in (root / FOLDER).iterdir()] == [LOCK]
    monkeypatch.setattr(hold, "LOCK_ATTEMPTS", 1)
    with hold_power_mode("MAXN_SUPER", root):
        words = ["profile", str(model), "--target", board.target, "--duration", "1", "--power-mode", "25W"]
        assert run(words) == 3
        assert capfd.readouterr().err.splitlines()[0].startswith("error: ")
        assert mode_of(tmp_path) == "pmode:0002"
    assert mode_of(tmp_path) == "pmode:0000"


def test_the_mode_that_a_killed_run_left_is_put_back(board, model, tmp_path):
    """A run on the board itself was killed at 25 W, which it had set instead of 15 W."""
    folder = tmp_path / "board" / FOLDER
    folder.mkdir(parents=True)
    (folder / NOTE).write_text(json.dumps({"restore": 0, "name": "15W", "held": 1}))
    (tmp_path / "board/var/lib/nvpmodel/status").write_text("pmode:0001\n")
    report, _ = done(ask(board, model, power_mode="MAXN_SUPER"))
    assert not [warning for warning in report.results[0].warnings if "restored" in warning]
    assert mode_of(tmp_path) == "pmode:0000"
    assert not (folder / NOTE).exists()


def test_ctrl_c_keeps_what_was_measured_and_the_board_puts_its_mode_back(board, model, tmp_path):
    def interrupt(done, total):
        if done == 1 and total == 2:
            wish(tmp_path, run_s=60)
            os.kill(os.getpid(), signal.SIGINT)

    report, _ = done(ask(board, model, model, power_mode="25W"), interrupt)
    assert not report.complete
    assert len(report.results) == 1
    board.wait_until_nothing_runs()
    assert mode_of(tmp_path) == "pmode:0000"
    assert not list((board.cache / "by-shell").iterdir())


def test_a_line_that_falls_silent_ends_everything_there(board, model, tmp_path):
    wish(tmp_path, run_s=60)
    words = ["profile", str(model), "--target", board.target, "--power-mode", "25W", "--duration", "1"]
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", CHILD, *words], os.environ)
    while not board.running("--loadEngine"):
        time.sleep(0.05)
    assert mode_of(tmp_path) == "pmode:0001"
    os.kill(child, signal.SIGSTOP)  # like a suspended laptop: its ssh stays connected and silent
    while board.running("--loadEngine") or board.running("tegrastats") or mode_of(tmp_path) != "pmode:0000":
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    board.wait_until_nothing_runs()
    assert not list((board.cache / "by-shell").iterdir())


CHILD = """
import sys
from emca_deploy.cli import run
from emca_deploy.remote import call, hold

hold.SILENCE_S, call.ALIVE_EVERY_S = 2.0, 0.5
sys.exit(run(sys.argv[1:]))
"""
