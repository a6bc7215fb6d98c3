"""`emca-deploy build`, in a process of its own, as a person runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from emca_deploy.artifacts import Manifest, read_manifest, write_manifest
from emca_deploy.backends.registry import available

CLASSIFIER = """<ir_version: 8, opset_import: ["" : 17]>
classifier (float[batch,3,8,8] images) => (float[batch,3] logits) { means = GlobalAveragePool(images) logits = Flatten(means) }"""


def run(*args: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "emca_deploy", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    import onnx.parser

    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.parser.parse_model(CLASSIFIER).SerializeToString())
    return path


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_json_is_all_there_is_on_stdout(backend: str, model: Path, tmp_path: Path) -> None:
    if available()[backend].reason:
        pytest.skip(f"{backend}: {available()[backend].reason}")
    engine = tmp_path / "model.engine"
    done = run("build", model, "--backend", backend, "-o", engine, "--batch", 2, "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["schema_version"], document["backend"], document["batch"], document["threads"]) == (1, backend, 2, 1)
    manifest = read_manifest(engine)
    assert manifest is not None
    assert document["sha256"] == manifest.sha256
    assert manifest.command == f"emca-deploy build {model} --backend {backend} -o {engine} --batch 2 --threads 1 --json"


def test_a_person_gets_a_line_and_a_warning_about_the_placement(model: Path, tmp_path: Path) -> None:
    write_manifest(model, Manifest("onnx", "", "int8", "openvino"))
    done = run("build", model, "--backend", "onnxruntime", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "onnxruntime engine, int8" in done.stdout
    assert "quantized for backend 'openvino'" in done.stderr


def refused(code: int, match: str, *args: object) -> None:
    done = run(*args)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    problem, remedy = done.stderr.splitlines()
    assert match in problem
    assert remedy.startswith("  try: ")


def test_bad_input_is_two_lines_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(2, "none.onnx: cannot be read", "build", tmp_path / "none.onnx", "--backend", "onnxruntime", "-o", out)
    refused(2, "no backend is called 'openvno'", "build", model, "--backend", "openvno", "-o", out)
    refused(3, "backend 'tensorrt'", "build", model, "--backend", "tensorrt", "-o", out)
    refused(2, "cannot be written", "build", model, "--backend", "onnxruntime", "-o", tmp_path / "none" / "out")
    refused(2, "is the model itself", "build", model, "--backend", "onnxruntime", "-o", model)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_counts_are_positive(model: Path, tmp_path: Path) -> None:
    done = run("build", model, "--backend", "onnxruntime", "-o", tmp_path / "out", "--batch", 0)
    assert done.returncode == 2
    assert "--batch" in done.stderr
