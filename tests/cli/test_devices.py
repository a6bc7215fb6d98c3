"""`emca-deploy devices` as a user runs it."""

import json
from pathlib import Path

import pytest

from emca_deploy.cli import run


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "devices.toml"
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", str(path))
    return path


def test_the_walk(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices"]) == 0
    assert "emca-deploy devices add NAME" in capsys.readouterr().out
    words = ["--power-mode", "15W", "--notes", "[bold]on\x1b[31m the\nshelf"]
    assert run(["devices", "add", "orin", "ssh://me@orin.local", *words]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "emca-deploy devices check orin" in err
    assert run(["devices"]) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("orin", "ssh://me@orin.local", "15W", "[bold]on?[31m the shelf"))
    assert "\x1b" not in shown
    assert run(["devices", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    notes = "[bold]on\x1b[31m the\nshelf"
    where = {"target": "ssh://me@orin.local", "host": "me@orin.local", "kind": None}
    device = {"name": "orin", **where, "power_mode": "15W", "notes": notes}
    assert document == {"schema_version": 1, "file": str(file), "devices": [device]}
    assert run(["devices", "remove", "orin"]) == 0
    assert run(["devices", "check"]) == 0
    assert "emca-deploy devices add NAME" in capsys.readouterr().out


def test_this_machine_can_be_checked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('[here]\ntarget = "cpu"\n[board]\ntarget = "jetson"\npower_mode = "MAXN"\n')
    assert run(["devices", "check", "here"]) == 0
    shown = capsys.readouterr().out
    assert "onnxruntime" in shown
    assert "free disk" in shown
    assert run(["devices", "check", "--json"]) == 3
    here, board = json.loads(capsys.readouterr().out)["devices"]
    assert (here["usable"], here["lacks"]) == (True, [])
    assert (board["reached"], board["usable"]) == (True, False)
    assert board["lacks"][0]["problem"] == "it is no Jetson board"
    assert run(["devices", "check", "board"]) == 3
    assert "it is no Jetson board" in capsys.readouterr().out


def test_a_device_of_a_gpu_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "add", "second", "gpu:97"]) == 0
    assert run(["devices", "check", "second", "--json"]) == 3
    (found,) = json.loads(capsys.readouterr().out)["devices"]
    assert found["lacks"]
    assert found["lacks"][0]["remedy"]


@pytest.mark.parametrize(
    ("arguments", "said", "remedy"),
    [
        (["add", "orin", "orin.local"], "'orin.local'", "ssh://[user@]host[:port]"),
        (["add", "orin", "ssh://a b"], "ssh://a b", "ssh://"),
        (["add", "or in", "cpu"], "'or in'", "letters, digits"),
        (["add", "gpu", "cpu"], "'gpu'", "my-gpu"),
        (["add", "known", "cpu"], "'known'", "devices remove known"),
        (["add", "new", "cpu", "--power-mode", "15W"], "'cpu'", "power mode"),
        (["add", "new"], "'TARGET'", "emca-deploy devices add --help"),
        (["remove", "knwon"], "'knwon'", "nearest: known"),
        (["check", "other"], "'other'", "`emca-deploy devices`"),
        (["chekc"], "'chekc'", "nearest: check"),
    ],
)
def test_bad_input_is_two_lines_and_changes_nothing(
    arguments: list[str], said: str, remedy: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text('[known]\ntarget = "cpu"\n')
    assert run(["devices", *arguments]) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert out == ""
    assert first.startswith("error: ")
    assert said in first
    assert second.startswith("  try: ")
    assert remedy in second
    assert file.read_text() == '[known]\ntarget = "cpu"\n'


@pytest.mark.parametrize("command", ["profile", "validate", "build"])
def test_every_command_that_has_a_target_knows_the_names(
    command: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text('[slow-one]\ntarget = "cpu"\n')
    (tmp_path / "m.onnx").write_bytes(b"")
    more = {"profile": [], "validate": ["--data", "x"], "build": ["--backend", "onnxruntime", "-o", str(tmp_path / "o")]}[command]
    assert run([command, str(tmp_path / "m.onnx"), *more, "--target", "slow-on"]) == 2
    err = capsys.readouterr().err
    assert "'slow-on'" in err
    assert "nearest: slow-one" in err
    file.write_text("[slow-one\n")
    assert run([command, str(tmp_path / "m.onnx"), *more, "--target", "slow-one"]) == 2
    assert str(file) in capsys.readouterr().err


@pytest.mark.usefixtures("in_process")
def test_a_name_may_be_of_this_machine(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('[here]\ntarget = "cpu"\n')
    assert run(["profile", "fake:latency_ms=1", "--target", "here", "--duration", "0.2", "--warmup", "0", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["target"] == "cpu"


def test_a_boards_power_mode_is_asked_for(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('[board]\ntarget = "cpu"\n')
    words = ["profile", "fake:latency_ms=1", "--target", "board"]
    assert run([*words, "--power-mode", "15W"]) == 2
    assert "--power-mode 15W: target 'cpu'" in capsys.readouterr().err
    file.write_text('[board]\ntarget = "jetson"\npower_mode = "15W"\n')
    assert run(words) == 3
    assert "Jetson" in capsys.readouterr().err
