"""Exit codes of every command that fails: 2 for wrong input, 3 for what this machine lacks."""

from pathlib import Path

import onnx
import pytest

from emca_deploy.cli import COMMANDS, run
from zoo.networks import residual, to_onnx

REFUSED: dict[str, list[tuple[str, int]]] = {
    "models": [("--family nothing", 2), ("--image-size 31", 2)],
    "export": [
        ("none.pth -o x.onnx", 2),
        ("-o x.onnx", 2),
        ("--random-init --arch resnet -o x.onnx", 2),
        ("text.pth -o x.onnx", 2),
    ],
    "calibrate": [
        ("none.onnx --data . --backend openvino -o x.onnx", 2),
        ("none.onnx --data . --backend no -o x.onnx", 2),
        ("none.onnx -o x.onnx", 2),
    ],
    "sensitivity": [("none.onnx --data . --backend openvino", 2), ("none.onnx --backend openvino", 2)],
    "plan": [
        ("none.onnx --backend tensorrt --device orin-nx --jetpack 6.2", 2),
        ("text.onnx --backend tensorrt --device no --jetpack 6.2", 2),
        ("text.onnx --backend openvino --device orin-nx", 2),
    ],
    "build": [
        ("none.onnx --backend onnxruntime -o x.ort", 2),
        ("text.onnx --backend no -o x.ort", 2),
        ("net.onnx --backend onnxruntime -o x.engine --target ssh://127.0.0.1:1", 3),
    ],
    "profile": [
        ("none.onnx", 2),
        ("fake --target tpu", 2),
        ("fake --scenario no", 2),
        ("fake --scenario paced", 2),
        ("fake --rate 10", 2),
        ("fake --deadline 20ms --scenario offline", 2),
        ("fake --scenario paced --rate ten", 2),
        ("fake --scenario paced --rate 10,10", 2),
        ("fake --scenario paced --rate nan", 2),
        ("fake --scenario paced --rate 0", 2),
        ("fake --scenario paced --deadline 0", 2),
        ("fake --scenario paced --rate 10 --max-duration 9", 2),
        ("fake --data none", 2),
        ("fake --end-to-end", 2),
        ("fake --end-to-end --data . --batch 2", 2),
        ("fake --data . --scenario offline", 2),
        ("net.onnx --data . --target ssh://127.0.0.1:1", 2),
        ("fake --concurrency 1,2 --scenario offline", 2),
        ("fake --concurrency 0,1", 2),
        ("fake --concurrency 1,1", 2),
        ("fake --concurrency 2 --target gpu", 2),
        ("fake fake:latency_ms=2 --co-run fake:latency_ms=1", 2),
        ("fake --co-run fake:latency_ms=1 --scenario paced --rate 5", 2),
        ("fake --co-run fake:latency_ms=1 --max-duration 9", 2),
        ("net.onnx --scenario paced --target ssh://127.0.0.1:1", 2),
        ("net.onnx --target ssh://127.0.0.1:1", 3),
        ("fake:fail_at=1 --warmup 0 --duration 0.1 --max-duration 0.1 --processes 1 --no-telemetry", 2),
    ],
    "layers": [("none.onnx", 2), ("fake", 2)],
    "tune": [("none.onnx", 2), ("fake --scenario no", 2)],
    "compare": [("none.json none.json", 2), ("text.json text.json", 2)],
    "validate": [("none.onnx --data .", 2), ("fake", 2), ("fake --data none", 2)],
    "gate": [
        ("none.json --require p99<=1ms", 2),
        ("text.json --require p99<=1ms", 2),
        ("text.json", 2),
        ("text.json --require p98<=1ms", 2),
    ],
    "history": [("add none.json --store x.db", 2), ("add text.json --store x.db", 2), ("show p98", 2), ("sho", 2)],
    "deploy": [("none.pth --data . --val . -o out", 2), ("none.pth --data . -o out", 2)],
    "sweep": [
        ("none.toml -o out", 2),
        ("text.json -o out", 2),
        ("net.onnx -o out", 2),
        ("text.json -o out --cluster tcp://192.0.2.1:8786", 2),
        ("text.json -o out --cluster tcp://127.0.0.1:1 --local-workers 2", 2),
        ("text.json -o out --cluster tls://127.0.0.1:1 --tls-ca x.pem", 2),
        ("text.json -o out --pin", 2),
    ],
    "fleet": [
        ("status", 2),
        ("stats", 2),
        ("status --cluster 127.0.0.1:8786", 2),
        ("status --cluster tcp://192.0.2.1:8786", 2),
        ("status --cluster tcp://127.0.0.1:1 --tls-ca x.pem", 2),
    ],
    "demo": [("--duration 0.1", 2), ("-o text.onnx", 2)],
    "report": [("none", 2), (".", 2)],
    "bundle": [
        ("none -o x.emca", 2),
        ("net.onnx -o x.emca", 2),
        ("text.json -o x.emca", 2),
        ("net.onnx -o x --layout none", 2),
        ("net.onnx -o x --layout triton", 2),
    ],
    "inspect": [("none", 2), ("text.json", 2), (".", 2)],
    "verify": [("none", 2), ("text.json", 2), (".", 2)],
    "run": [("none x.png", 2), ("text.json x.png", 2), ("text.json text.json", 2), (". text.json", 2)],
    "check-preprocess": [
        ("none -- x {image} {out.npy}", 2),
        ("net.onnx -- x {image}", 2),
        ("net.onnx -- none {image} {out.npy}", 2),
    ],
    "devices": [("check none", 2), ("add x y z", 2), ("ad", 2), ("remove none", 2)],
    "doctor": [("--no", 2)],
    "completion": [("nosuch", 2)],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", str(tmp_path / "devices.toml"))
    onnx.save(to_onnx(residual, size=16), tmp_path / "net.onnx")
    for suffix in ("onnx", "pth", "json", "engine"):
        (tmp_path / f"text.{suffix}").write_text("no model\n")
    return tmp_path


def test_every_command_has_its_refusals() -> None:
    assert list(REFUSED) == list(COMMANDS)


@pytest.mark.parametrize(("command", "words", "code"), [(name, *each) for name, some in REFUSED.items() for each in some])
def test_a_refused_run(command: str, words: str, code: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    assert run([command, *words.split()]) == code
    out, err = capsys.readouterr()
    assert out == ""
    problem, remedy = err.splitlines()
    assert problem.startswith("error: ")
    assert remedy.startswith("  try: ")
    assert sorted(folder.iterdir()) == before


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["deplo"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
