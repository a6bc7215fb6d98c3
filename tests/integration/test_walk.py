"""All commands in order, each on the files of the one before, and the demo."""

import json
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.cli import run
from emca_deploy.results.deploy import read_deploy_report
from golden.shapes import shape_of

THREADS = ["--threads", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two data sets for a network of three classes."""
    folder = tmp_path_factory.mktemp("walk")
    random = np.random.default_rng(0)
    np.savez(folder / "calibration.npz", images=random.integers(0, 256, (8, 36, 36, 3), np.uint8))
    np.savez(folder / "val.npz", images=random.integers(0, 256, (12, 36, 36, 3), np.uint8), labels=np.arange(12) % 3)
    return folder


@pytest.fixture
def documents(folder, capsys, monkeypatch):
    """Return a function that runs a command in the folder and returns its JSON document."""
    monkeypatch.chdir(folder)

    def call(*arguments: str) -> dict:
        capsys.readouterr()
        assert run([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.mark.slow  # tests/golden and tests/cli/test_deploy.py run the same commands on smaller networks
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_from_fresh_weights_to_figures(documents, folder, backend):
    pytest.importorskip(backend)
    model, quantized, engine = "model.onnx", f"model.{backend}.onnx", f"model.{backend}.engine"
    if not Path(model).exists():
        fresh = ["--random-init", "--arch", "emca_srm_resnet18", "--num-classes", "3", "--image-size", "32"]
        assert documents("export", *fresh, "-o", model)["arch"] == "emca_srm_resnet18"
    given = ["--data", "calibration.npz", "--backend", backend, "--recover", "none", *THREADS]  # the demo's test covers recovery
    calibrated = documents("calibrate", model, "-o", quantized, *given)
    assert calibrated["samples"] == 8
    documents("build", quantized, "--backend", backend, "-o", engine, *THREADS)
    accuracy = documents("validate", engine, "--data", "val.npz", "--reference", model, *THREADS)
    assert (accuracy["samples"], accuracy["reference"]["artifact"]) == (12, model)
    assert accuracy["reference"]["sqnr_db"] > 15
    profile = documents("profile", model, engine, "--duration", "0.2", "--warmup", "0.1", *THREADS)
    assert [(r["artifact"], r["precision"]) for r in profile["results"]] == [(model, "fp32"), (engine, "int8")]
    assert profile["results"][1]["backend"] == backend
    assert len(profile["comparisons"]) == 1
    assert not [name.name for name in folder.iterdir() if name.name.startswith(".")]


@pytest.mark.slow
def test_the_demo_shows_int8_close_to_fp32_on_real_images(tmp_path, capsys, golden):
    """The bundled network is trained: INT8 costs it little accuracy on images that calibration does not use."""
    pytest.importorskip("openvino")
    output = tmp_path / "demo"
    assert run(["demo", "-o", str(output), "--duration", "0.5", "--limit", "200", *THREADS]) == 0
    assert str(output / "report.html") in capsys.readouterr().out
    assert list(output.glob("model.weights*.npz"))  # recovery is on by default
    golden("json/demo", shape_of(json.loads((output / "result.json").read_text())))
    report = read_deploy_report(output / "result.json")
    assert report.title == "emca_eca_resnet18, 10 classes, 64x64"
    baseline = report.candidates[0].accuracy
    assert baseline.samples == 200
    assert baseline.top1 > 92
    for candidate in report.candidates[2:]:
        reference = candidate.accuracy.reference
        assert reference.agreement >= 99
        assert abs(reference.top1_drop) <= 1
        assert reference.sqnr_db > 40
