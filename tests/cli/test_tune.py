"""`tune` writes the settings it finds into the manifest, or writes nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from emca_deploy.api import tune as tuning
from emca_deploy.artifacts import Manifest, manifest_path, read_manifest, write_manifest
from emca_deploy.backends.registry import tunables
from emca_deploy.cli import run
from emca_deploy.harness.measure import tuning as search_module
from emca_deploy.results.codec import from_json
from emca_deploy.results.tuning import TuneReport

FAKE = "fake:latency_ms=4"


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """Remove the time limit of a search: a short budget's result depends on the machine's load."""
    monkeypatch.setattr(search_module, "_TOLERANCE", 1000.0)


@pytest.fixture
def own_model(tmp_path):
    """A small model with a manifest."""
    import onnx.parser

    graph = "(float[batch,3,32,32] images) => (float[batch,3] logits) { m = GlobalAveragePool(images) logits = Flatten(m) }"
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\nclassifier {graph}').SerializeToString())
    write_manifest(path, Manifest("onnx", "", "fp32"))
    return path


@pytest.mark.usefixtures("in_process")
def test_json_says_what_was_tried_and_found(tmp_path, capsys):
    path = tmp_path / "tuned.json"
    command = ["tune", FAKE, "--allow-precision", "bf16", "--budget", "3", "--threads-max", "1"]
    assert run([*command, "--json", "-o", str(path)]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert json.loads(path.read_text()) == document
    report = from_json(TuneReport, document)
    assert (report.backend, report.scenario, report.batch, report.complete) == ("fake", "single-stream", 1, True)
    assert report.settings == {"threads": 1, "pace": "quick", "precision": "f32"}
    assert report.default == {"threads": 1, "pace": "steady", "precision": "f32"}
    (bf16,) = [trial for trial in report.rounds[0].trials if trial.changed == {"precision": "bf16"}]
    assert bf16.ratio_ci95[1] < 1  # supported here but slower: detected and not used
    assert report.verdict == "faster"
    assert report.ratio_ci95[0] > 1
    assert report.saved_to is None
    assert report.numerics.sqnr_db is None  # a fake returns the same results at any speed
    assert "round 1" in err
    assert "pace=broken: " in err


@pytest.fixture
def few_tunables(monkeypatch):
    """Limit the search to one setting and the default: these tests are about files."""
    monkeypatch.setattr(
        tuning, "tunables", lambda *of: [one for one in tunables(*of) if one.name in ("threads", "flush_denormals")]
    )


@pytest.mark.usefixtures("few_tunables", "in_threads")
def test_kept_in_the_manifest_used_by_profile_and_left_out_when_told(own_model, capsys):
    before = json.loads(manifest_path(own_model).read_text())
    assert run(["tune", str(own_model), "--backend", "onnxruntime", "--budget", "1", "--threads-max", "1"]) == 0
    out = capsys.readouterr().out
    assert "kept in" in out
    manifest = read_manifest(own_model)
    (kept,) = manifest.settings
    assert (kept["backend"], kept["scenario"], kept["batch"]) == ("onnxruntime", "single-stream", 1)
    after = json.loads(manifest_path(own_model).read_text())
    del after["settings"]
    assert after == before
    quick = ["--duration", "0.2", "--max-duration", "0.2", "--warmup", "0", "--json", "--no-telemetry"]
    assert run(["profile", str(own_model), "--backend", "onnxruntime", *quick]) == 0
    told = "runs with its tuned settings" in capsys.readouterr().err
    assert told is bool(kept["values"])
    assert run(["profile", str(own_model), "--backend", "onnxruntime", "--untuned", *quick]) == 0
    assert "tuned" not in capsys.readouterr().err


@pytest.mark.usefixtures("few_tunables", "in_threads")
def test_no_save_and_a_model_without_manifest_write_nothing(own_model, capsys, files):
    before = manifest_path(own_model).read_bytes()
    assert run(["tune", str(own_model), "--backend", "onnxruntime", "--budget", "1", "--threads-max", "1", "--no-save"]) == 0
    assert manifest_path(own_model).read_bytes() == before
    manifest_path(own_model).unlink()
    assert run(["tune", str(own_model), "--budget", "1", "--threads-max", "1"]) == 0
    assert files(own_model.parent) == {"model.onnx"}
    assert "kept in" not in capsys.readouterr().out


def test_interrupted_the_manifest_stays_and_the_best_so_far_is_printed(own_model):
    before = manifest_path(own_model).read_bytes()
    command = [sys.executable, "-m", "emca_deploy", "tune", str(own_model), "--backend", "onnxruntime", "--budget", "60"]
    process = subprocess.Popen([*command, "--threads-max", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:  # each round is reported when it ends
        if "round 1" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "fastest so far" in out
    assert "manifest" in err
    assert "Traceback" not in err
    assert manifest_path(own_model).read_bytes() == before
    assert set(os.listdir(own_model.parent)) == {own_model.name, manifest_path(own_model).name}  # noqa: PTH208


@pytest.mark.usefixtures("in_process")
def test_on_a_full_disk_what_was_found_is_still_told(full_disk, capsys):
    assert run(["tune", FAKE, "--budget", "1", "--threads-max", "1", "-o", str(full_disk / "t.json")]) == 2
    out, err = capsys.readouterr()
    assert "pace=quick" in out
    assert f"error: {full_disk / 't.json'}: " in err
    assert os.listdir(full_disk) == ["filling"]  # noqa: PTH208


def test_bad_input_is_refused_in_two_lines(own_model, tmp_path, refused):
    assert str(tmp_path / "absent.onnx") in refused("tune", tmp_path / "absent.onnx")
    assert "torch" in refused("tune", _checkpoint(tmp_path))
    assert "f16" in refused("tune", own_model, "--backend", "onnxruntime", "--allow-precision", "f16")
    assert "--budget" in refused("tune", own_model, "--budget", "0")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(own_model.read_bytes()[:-5])
    assert str(damaged) in refused("tune", damaged, "--budget", "5")
    assert str(tmp_path / "absent") in refused("tune", own_model, "-o", tmp_path / "absent" / "tuned.json")
    assert set(os.listdir(tmp_path)) == {"model.onnx", "model.onnx.manifest.json", "damaged.onnx", "a.safetensors"}  # noqa: PTH208


def _checkpoint(folder):
    path = folder / "a.safetensors"
    path.write_bytes(b"")
    return path
