"""`devices check` and named targets through a real sshd."""

import json
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from emca_deploy.cli import run
from emca_deploy.machines.jetson.facts import detect
from emca_deploy.remote.address import parse_address
from emca_deploy.remote.board import remote_board
from emca_deploy.remote.connection import Connection

BOARDS = Path(__file__).parents[2] / "data/boards"
QUICK = ("--duration", "0.3", "--max-duration", "0.3", "--warmup", "0.1", "--json")
TRTEXEC = "#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec --help'\necho '=== Model Options ==='\n"


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "devices.toml"
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", str(path))
    return path


def checked(capfd, *words: str) -> tuple[int, list[dict[str, object]]]:
    capfd.readouterr()
    code = run(["devices", "check", *words, "--json"])
    return code, json.loads(capfd.readouterr().out)["devices"]


def test_a_machine_says_what_it_can_do(far, remote_python, capfd) -> None:
    assert run(["devices", "add", "shelf", far.target, "--notes", "loopback"]) == 0
    code, (found,) = checked(capfd, "shelf")
    assert code == 0
    assert (found["name"], found["target"], found["notes"]) == ("shelf", far.target, "loopback")
    assert (found["reached"], found["usable"], found["error"], found["board"]) == (True, True, None, None)
    assert found["can"] == ["profile", "validate", "build"]
    assert found["python"] == remote_python
    assert found["python_version"] == ".".join(map(str, sys.version_info[:3]))
    assert found["machine"] == os.uname().machine
    assert "onnxruntime" in found["backends"]
    assert found["versions"]["numpy"]
    assert found["free_mib"] > 0
    assert abs(found["clock_offset_s"]) < 5
    assert run(["devices", "check"]) == 0
    shown = capfd.readouterr().out
    assert f"shelf ({far.target})" in shown
    assert "onnxruntime" in shown
    far.wait_until_nothing_runs()


def test_a_power_mode_or_a_board_where_there_is_none(far, capfd) -> None:
    assert run(["devices", "add", "mode", far.target, "--power-mode", "15W"]) == 0
    assert run(["devices", "add", "board", f"{far.target}/jetson"]) == 0
    code, (mode, board) = checked(capfd)
    assert code == 3
    assert (mode["usable"], mode["lacks"][-1]["problem"]) == (False, "power mode '15W': it is no Jetson board")
    assert (board["usable"], board["lacks"][-1]["problem"]) == (False, "it is no Jetson board")


def test_all_are_checked_although_one_is_off(far, capfd) -> None:
    far.process.terminate()
    far.process.wait(10)
    assert run(["devices", "add", "off", far.target]) == 0
    assert run(["devices", "add", "here", "cpu"]) == 0
    code, (off, here) = checked(capfd)
    assert code == 3
    assert (off["reached"], off["usable"]) == (False, False)
    assert "nothing answers on that port" in off["error"]["problem"]
    assert (here["reached"], here["usable"]) == (True, True)


def test_only_trtexec_without_a_python(sshds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "trtexec").write_text(TRTEXEC)
    (tools / "trtexec").chmod(stat.S_IRWXU)
    for tool in ("sh", "head", "od", "tr", "awk", "cat"):
        (tools / tool).symlink_to(next(Path(folder, tool) for folder in ("/usr/bin", "/bin") if Path(folder, tool).exists()))
    far = sshds(environment={"PATH": str(tools)})
    monkeypatch.setenv("EMCA_DEPLOY_SSH_CONFIG", str(far.folder / "ssh_config"))
    monkeypatch.delenv("EMCA_DEPLOY_REMOTE_PYTHON", raising=False)
    assert run(["devices", "add", "old", far.target]) == 0
    code, (found,) = checked(capfd, "old")
    assert code == 0
    assert (found["usable"], found["can"]) == (True, ["profile", "build"])
    assert (found["python"], found["backends"], found["clock_offset_s"]) == (None, [], None)
    assert found["trtexec"].endswith("trtexec")
    assert found["trtexec_version"] == "8.5.2"
    assert "has no Python" in found["lacks"][0]["problem"]
    assert not found["lacks"][0]["blocks"]
    (tools / "trtexec").write_text("#!/bin/sh\necho no trtexec of TensorRT\n")
    code, (found,) = checked(capfd, "old")
    assert (code, found["usable"], found["can"]) == (3, False, [])


def test_what_board_it_is_comes_from_its_files(far, tmp_path: Path) -> None:
    found = {}
    with Connection(parse_address(far.target)) as connection:
        for recorded in ("agx-orin", "agx-xavier-jp4", "orin-nano-super", "thor"):
            root = tmp_path / "its root" / recorded
            shutil.copytree(BOARDS / recorded, root)
            (root / "proc/device-tree").unlink(missing_ok=True)
            (root / "proc/device-tree").symlink_to("../sys/firmware/devicetree/base")  # a kernel file that every board has
            found[recorded] = remote_board(connection, str(root))
            assert found[recorded].facts == detect(root)
        assert remote_board(connection, str(far.folder)) is None
    nano = found["orin-nano-super"]
    assert (nano.facts.device, nano.facts.l4t, nano.facts.jetpack) == ("orin-nano", "36.4.7", "6.2.1")
    assert (nano.power_mode, nano.fastest_mode) == ("15W", "MAXN_SUPER")
    assert "installed" in {origin for board in found.values() for origin in board.facts.origins.values()}


def test_a_name_is_a_target_where_a_model_is_measured(far, model, capfd) -> None:
    assert run(["devices", "add", "shelf", far.target]) == 0
    capfd.readouterr()
    assert run(["profile", str(model), "--target", "shelf", *QUICK]) == 0
    document = json.loads(capfd.readouterr().out)
    (result,) = document["results"]
    assert (result["artifact"], result["target"]) == (str(model), far.target)
    assert document["environment"]["ssh"]["target_there"] == "cpu"
    far.wait_until_nothing_runs()
    assert run(["profile", str(model), "--target", "shelve"]) == 2
    assert "nearest: shelf" in capfd.readouterr().err
