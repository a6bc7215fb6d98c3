"""`emca-deploy build` as a user runs it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emca_deploy.artifacts import Manifest, read_manifest, write_manifest
from emca_deploy.backends.registry import available
from emca_deploy.cli import run as run_here

CLASSIFIER = """<ir_version: 8, opset_import: ["" : 17]>
classifier (float[batch,3,8,8] images) => (float[batch,3] logits) { means = GlobalAveragePool(images) logits = Flatten(means) }"""


def in_a_process(*args: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "emca_deploy", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    def call(*args: object) -> "subprocess.CompletedProcess[str]":
        words = list(map(str, args))
        monkeypatch.setattr(sys, "argv", ["emca-deploy", *words])
        capsys.readouterr()
        return subprocess.CompletedProcess(words, run_here(words), *capsys.readouterr())

    return call


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    import onnx.parser

    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.parser.parse_model(CLASSIFIER).SerializeToString())
    return path


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_json_is_all_there_is_on_stdout(backend: str, classifier: Path, tmp_path: Path, run: Any) -> None:
    if available()[backend].reason:
        pytest.skip(f"{backend}: {available()[backend].reason}")
    engine = tmp_path / "model.engine"
    call = in_a_process if backend == "onnxruntime" else run  # one is enough of what a runtime itself may print
    done = call("build", classifier, "--backend", backend, "-o", engine, "--batch", 2, "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["schema_version"], document["backend"], document["batch"], document["threads"]) == (1, backend, 2, 1)
    manifest = read_manifest(engine)
    assert manifest is not None
    assert document["sha256"] == manifest.sha256
    assert manifest.command == f"emca-deploy build {classifier} --backend {backend} -o {engine} --batch 2 --threads 1 --json"


def test_a_person_gets_a_line_and_a_warning_about_the_placement(classifier: Path, tmp_path: Path, run: Any) -> None:
    write_manifest(classifier, Manifest("onnx", "", "int8", "openvino"))
    done = run("build", classifier, "--backend", "onnxruntime", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "onnxruntime engine, int8" in done.stdout
    assert "quantized for backend 'openvino'" in done.stderr


def test_bad_input_is_two_lines_and_leaves_nothing(classifier: Path, tmp_path: Path, refused: Any) -> None:
    def refused_with(code: int, match: str, *words: object) -> None:
        assert match in refused(*words, code=code).splitlines()[0]

    out = tmp_path / "out"
    refused_with(2, "none.onnx: no such file", "build", tmp_path / "none.onnx", "--backend", "onnxruntime", "-o", out)
    refused_with(2, "no backend is called 'openvno'", "build", classifier, "--backend", "openvno", "-o", out)
    refused_with(3, "backend 'tensorrt'", "build", classifier, "--backend", "tensorrt", "-o", out)
    refused_with(2, "cannot be written", "build", classifier, "--backend", "onnxruntime", "-o", tmp_path / "none" / "out")
    refused_with(2, "would be overwritten", "build", classifier, "--backend", "onnxruntime", "-o", classifier)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_counts_are_positive(classifier: Path, tmp_path: Path, run: Any) -> None:
    done = run("build", classifier, "--backend", "onnxruntime", "-o", tmp_path / "out", "--batch", 0)
    assert done.returncode == 2
    assert "--batch" in done.stderr


@pytest.fixture
def network(model: Path) -> Path:
    """An emca_eca_resnet18 at 32x32 with a dynamic batch, if TensorRT-RTX is installed."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    return model


def test_tensorrt_rtx_takes_its_options(network: Path, tmp_path: Path, run: Any) -> None:
    engine = tmp_path / "net.engine"
    options = ["--batches", "2,4,8", "--workspace-mib", 256, "--optimization-level", 0]
    targets = ["--target-capability", "8.6", "--target-capability", "8.9"]
    done = run("build", network, "--backend", "tensorrt-rtx", "-o", engine, "--threads", 1, *options, *targets, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # progress bars are for terminals only
    document = json.loads(done.stdout)
    built = document["tensorrt"]
    assert (built["batches"], built["targets"]) == ([2, 4, 8], ["8.6", "8.9"])
    assert (built["convolutions"], built["int8_convolutions"], document["precision"]) == (19, 0, "fp32")
    assert document["machine"]["instruction_sets"] == ["sm_86", "sm_89"]
    manifest = read_manifest(engine)
    assert manifest is not None
    assert manifest.details["tensorrt"] == built
    assert {file.name for file in tmp_path.iterdir()} == {"net.engine", "net.engine.manifest.json"}


def test_a_person_sees_how_many_convolutions_are_int8(network: Path, tmp_path: Path, run: Any) -> None:
    options = ["--threads", 1, "--batch", 1, "--target-capability", "8.9"]
    done = run("build", network, "--backend", "tensorrt-rtx", "-o", tmp_path / "e", *options)
    assert done.returncode == 0, done.stderr
    assert "tensorrt-rtx engine, fp32" in done.stdout
    assert "0 of 19 convolutions in INT8" in done.stderr
    assert "sm_89" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--version-compatible"], "version-compatible"),
        (["--hardware-compatible"], "--target-capability"),
        (["--dla-core", "0"], "DLA"),
        (["--timing-cache", "folder"], "timing cache"),
        (["--calibration-cache", "x.cache"], "calibration cache"),
        (["--target-capability", "9.9"], "'9.9'"),
        (["--batches", "1,2"], "--batches 1,2"),
        (["--batches", "1,x,3"], "--batches 1,x,3"),
        (["--batches", "8,4,2"], "(8, 4, 2)"),
        (["--batches", "1,2,3", "--batch", "2"], "exclude each other"),
        (["--optimization-level", "6"], "--optimization-level"),
        (["--workspace-mib", "0"], "--workspace-mib"),
    ],
)
def test_what_tensorrt_rtx_lacks_is_refused(network: Path, tmp_path: Path, options: list[str], words: str, refused: Any) -> None:
    said = refused("build", network, "--backend", "tensorrt-rtx", "-o", tmp_path / "out", *options)
    assert words in said
    assert list(tmp_path.iterdir()) == []


def test_tensorrts_options_are_not_other_backends(classifier: Path, tmp_path: Path, refused: Any) -> None:
    said = refused(
        "build", classifier, "--backend", "onnxruntime", "-o", tmp_path / "out", "--dla-core", 0, "--target-capability", "8.6"
    )
    assert all(word in said for word in ("'onnxruntime'", "--dla-core", "--target-capability"))


def test_ctrl_c_leaves_nothing(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from contextlib import contextmanager

    from emca_deploy.commands import build

    seen: list[int] = []

    def interrupt(done: int, total: int) -> None:
        if not seen:
            os.kill(os.getpid(), signal.SIGINT)
        seen.append(done)

    @contextmanager
    def bar(description: str) -> Any:
        yield interrupt

    monkeypatch.setattr(build, "progress", bar)
    assert run_here(["build", str(network), "--backend", "tensorrt-rtx", "-o", str(tmp_path / "e"), "--threads", "1"]) == 130
    assert seen
    assert "interrupted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
