"""`--target jetson`: refused on other machines; on a recorded board the command runs and its result names the board."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emca_deploy.artifacts import read_manifest
from emca_deploy.cli import run

BOARDS = Path(__file__).parents[1] / "data/boards"


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A copy of an Orin Nano Super at 15 W that the commands detect as this machine."""
    place = tmp_path / "board"
    shutil.copytree(BOARDS / "orin-nano-super", place)
    monkeypatch.setenv("EMCA_DEPLOY_BOARD_ROOT", str(place))
    return place


def mode_of(board):
    return (board / "var/lib/nvpmodel/status").read_text().strip()


PROFILE = ["--duration", "0.2", "--max-duration", "0.2", "--warmup", "0", "--threads", "1"]


def test_refused_on_a_machine_that_is_no_board(refused, model, labelled_images, tmp_path):
    for arguments in (
        ["profile", model],
        ["validate", model, "--data", labelled_images],
        ["build", model, "--backend", "onnxruntime", "-o", tmp_path / "engine.ort.onnx"],
    ):
        said = refused(*arguments, "--target", "jetson", code=3)
        assert "no Jetson board" in said
    assert not (tmp_path / "engine.ort.onnx").exists()


def test_a_power_mode_is_the_boards(refused, model):
    assert "--target jetson" in refused("profile", model, "--power-mode", "MAXN")
    assert "--target jetson" in refused("build", model, "--backend", "onnxruntime", "-o", "x", "--power-mode", "MAXN")
    assert "--target jetson" in refused("validate", model, "--data", "x", "--power-mode", "MAXN", "--target", "gpu")


@pytest.mark.usefixtures("board")
def test_what_a_board_does_not_have(refused, model, tmp_path):
    assert "nearest: MAXN_SUPER" in refused("profile", model, "--target", "jetson", "--power-mode", "MAXNSUPER")
    assert "no such file" in refused("profile", tmp_path / "none.onnx", "--target", "jetson")
    assert "reboot" in refused("profile", model, "--target", "jetson", "--power-mode", "7W", code=3)


def test_profile_in_a_power_mode(board, model, tmp_path, capsys):
    output = tmp_path / "result.json"
    arguments = ["profile", str(model), "--target", "jetson", "--power-mode", "MAXN_SUPER", "-o", str(output), *PROFILE]
    # Long enough for the slowest source, which is read every half second.
    assert run([*arguments, "--duration", "1.5", "--max-duration", "1.5"]) == 0
    assert mode_of(board) == "pmode:0000"
    assert (board / "var/recorded/asked").read_text().split() == ["2", "0"]
    document = json.loads(output.read_text())
    (result,) = document["results"]
    assert (result["target"], result["backend"]) == ("jetson", "onnxruntime")
    record = document["environment"]["board"]
    assert record["device"] == "orin-nano"
    assert record["power_mode"]["name"] == "MAXN_SUPER"
    assert record["clocks"]["locked"] is False
    sources = result["telemetry"]["sources"]
    assert sources["ina3221"]["power"]["total"]["power_w"] == pytest.approx(4.825344)
    assert "power" not in sources["tegrastats"]  # no rail is reported twice
    assert sources["tegrastats"]["values"]["ram_used_mib"]["mean"] == 3452
    assert sources["gpu_clock"]["values"]["gpu_mhz"]["mean"] == 306
    assert sources["temperature"]["values"]["gpu-thermal_temperature_c"]["mean"] == 49.031
    assert "not locked" in capsys.readouterr().err


@pytest.mark.usefixtures("in_threads")
def test_a_slow_mode_is_warned_of_with_every_result(board, model, capsys):
    assert run(["profile", f"onnxruntime={model}", str(model), "--target", "jetson", "--json", "--no-telemetry", *PROFILE]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["results"]) == 2
    for result in document["results"]:
        assert any("15W, not MAXN_SUPER" in warning for warning in result["warnings"])
    assert not (board / "var/recorded/asked").exists()


@pytest.mark.usefixtures("in_threads")
def test_what_was_measured_is_kept_where_the_mode_cannot_be_put_back(board, model, capsys):
    tool = board / "usr/sbin/nvpmodel"
    tool.write_text(tool.read_text().replace("-m)\n", "-m)\n    [ $2 = 0 ] && { echo NVPM ERROR: busy; exit 255; }\n"))
    assert run(["profile", str(model), "--target", "jetson", "--power-mode", "25W", "--json", *PROFILE]) == 0
    document = json.loads(capsys.readouterr().out)
    assert any("sudo nvpmodel -m 0" in warning for warning in document["results"][0]["warnings"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_an_interrupted_run_puts_the_mode_back(board, model, number):
    arguments = ["profile", str(model), "--target", "jetson", "--power-mode", "25W", "--duration", "60", "--threads", "1"]
    command = subprocess.Popen(
        [sys.executable, "-m", "emca_deploy", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    asked = board / "var/recorded/asked"
    for _ in range(900):
        if asked.exists() and mode_of(board) == "pmode:0001":
            break
        with pytest.raises(subprocess.TimeoutExpired):
            command.wait(0.1)
    command.send_signal(number)
    said, _ = command.communicate(timeout=90)
    assert command.returncode == 130, said
    assert mode_of(board) == "pmode:0000"
    assert not (board / "var/lib/emca-deploy/power-mode.json").exists()


@pytest.mark.usefixtures("in_threads")
def test_validate_on_the_board(board, model, labelled_images, capsys):
    arguments = ["validate", str(model), "--data", str(labelled_images), "--target", "jetson", "--power-mode", "25W"]
    assert run([*arguments, "--reference", str(model), "--threads", "1", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["reference"]["agreement"] == 100
    assert (board / "var/recorded/asked").read_text().split() == ["1", "0"]
    assert "not locked" in captured.err


def test_build_on_the_board(board, model, tmp_path, capsys):
    engine = tmp_path / "engine.ort.onnx"
    arguments = ["build", str(model), "--backend", "onnxruntime", "-o", str(engine), "--target", "jetson"]
    assert run([*arguments, "--power-mode", "MAXN_SUPER"]) == 0
    manifest = read_manifest(engine)
    assert manifest.details["board"]["power_mode"]["name"] == "MAXN_SUPER"
    assert mode_of(board) == "pmode:0000"
    assert "not locked" in capsys.readouterr().err


def test_an_engine_is_kept_where_the_mode_cannot_be_put_back(board, model, tmp_path, capsys):
    tool = board / "usr/sbin/nvpmodel"
    tool.write_text(tool.read_text().replace("-m)\n", "-m)\n    [ $2 = 0 ] && { echo NVPM ERROR: busy; exit 255; }\n"))
    engine = tmp_path / "engine.ort.onnx"
    arguments = ["build", str(model), "--backend", "onnxruntime", "-o", str(engine), "--target", "jetson"]
    assert run([*arguments, "--power-mode", "25W", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["engine"] == str(engine)
    assert "sudo nvpmodel -m 0" in captured.err


@pytest.mark.usefixtures("board")
def test_a_dla_that_the_board_does_not_have(refused, model, tmp_path):
    arguments = ["build", model, "--backend", "tensorrt-rtx", "-o", tmp_path / "x.engine", "--target", "jetson"]
    assert "has no DLA" in refused(*arguments, "--dla-core", "0")


def test_build_elsewhere(refused, model):
    assert "no target is called" in refused("build", model, "--backend", "onnxruntime", "-o", "x", "--target", "moon")


@pytest.mark.usefixtures("board")
def test_an_engine_needs_a_gpu(refused, model, tmp_path):
    """The manifest of an engine determines where it runs; this machine has no GPU."""
    from emca_deploy._machine import find_gpus
    from emca_deploy.artifacts import Manifest, write_manifest

    if find_gpus():
        pytest.skip("there is a GPU here")
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"an engine")
    write_manifest(engine, Manifest("engine", "", "int8", backend="tensorrt"))
    assert "gpu:0" in refused("profile", engine, "--target", "jetson", code=3)
    assert "gpu:0" in refused("profile", model, "--backend", "tensorrt", "--target", "jetson", code=3)


@pytest.mark.usefixtures("board")
def test_doctor_tells_of_the_board(capsys, monkeypatch):
    # tests/cli/test_doctor.py covers whether libraries load, which takes seconds.
    monkeypatch.setattr("emca_deploy.api.doctor.load_failure", lambda module: None)
    assert run(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["board"]["jetpack"] == "6.2.1"
    traps = [trap["id"] for trap in document["traps"]]
    assert {"power-mode", "clocks-not-locked"} <= set(traps)
    assert "governor" not in traps
    assert run(["doctor"]) == 0
    said = capsys.readouterr().out
    for words in ("Orin Nano", "L4T 36.4.7, JetPack 6.2.1, TensorRT 10.3.0.30, CUDA 12.6", "15W (fastest: MAXN_SUPER)"):
        assert words in said


@pytest.mark.slow  # half a minute; tests/cli/test_deploy.py and tests/unit/api cover the parts
def test_deploy_on_the_board(board, checkpoint, flat_images, labelled_images, tmp_path, capsys):
    arguments = [
        "deploy",
        str(checkpoint),
        "--data",
        str(flat_images),
        "--val",
        str(labelled_images),
        "-o",
        str(tmp_path / "out"),
    ]
    options = ["--targets", "jetson", "--backend", "onnxruntime", "--image-size", "32", "--resize-size", "40"]
    assert run([*arguments, *options, "--samples", "4", "--threads", "1", "--duration", "0.5", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["environment"]["board"]["device"] == "orin-nano"
    assert document["environment"]["fingerprint_parts"]["power_mode"] == "15W"
    names = [candidate["name"] for candidate in document["candidates"]]
    assert names == ["onnxruntime fp32", "onnxruntime int8"]
    for candidate in document["candidates"]:
        assert candidate["latency"]["target"] == "jetson"
        assert any("15W, not MAXN_SUPER" in warning for warning in candidate["latency"]["warnings"])
    assert "MAXN_SUPER" in (tmp_path / "out/report.html").read_text()


@pytest.mark.usefixtures("in_threads")
def test_a_named_boards_power_mode_is_held_while_deploy_measures(board, tmp_path, monkeypatch):
    from dataclasses import replace

    from emca_deploy.api.parts import find_parts
    from emca_deploy.harness.spec import RunnerSpec
    from emca_deploy.targets.deployment import BuiltCandidate

    file = tmp_path / "devices.toml"
    file.write_text('[shelf]\ntarget = "jetson"\npower_mode = "25W"\n')
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", str(file))
    (part,) = find_parts(["shelf"], ["onnxruntime"])
    artifact = "fake:latency_ms=0.1"
    spec = RunnerSpec("fake", kwargs={"backend": "fake", "artifact": artifact}, artifact=artifact, backend="fake")
    report = part.target.measure([replace(part, candidates=(BuiltCandidate("fake", file, spec),))], 0.1)
    assert report.environment["board"]["power_mode"]["name"] == "25W"
    assert mode_of(board) == "pmode:0000"
