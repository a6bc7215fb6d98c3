"""A placement measured on a remote machine: its processor and runtime are what the result is kept for."""

import json

import numpy as np
import onnx
import pytest

from emca_deploy.api.placing import search
from emca_deploy.cli import run
from emca_deploy.harness.measure import tuning
from emca_deploy.results.tuning import Tunable
from zoo.networks import SIZE, residual, to_onnx


@pytest.fixture
def words(tmp_path):
    """The command line of a calibration with a measured placement, without its target."""
    onnx.save(to_onnx(residual), tmp_path / "model.onnx")
    images = np.random.default_rng(0).standard_normal((6, 3, SIZE, SIZE)).astype(np.float32)
    np.savez(tmp_path / "images.npz", images=images)
    files = [str(tmp_path / name) for name in ("model.onnx", "images.npz", "int8.onnx")]
    given = ["calibrate", files[0], "--data", files[1], "-o", files[2], "--backend", "onnxruntime", "--json"]
    quick = ["--recover", "none", "--method", "minmax", "--samples", "4", "--image-size", str(SIZE), "--threads", "1"]
    return [*given, *quick, "--placement", "measured", "--placement-budget", "1"]


@pytest.mark.slow  # each round connects, and loads the models in processes over there
def test_a_placement_is_measured_over_there_and_kept(far, words, capfd, monkeypatch):
    monkeypatch.setattr(tuning, "_TOLERANCE", 1000.0)
    monkeypatch.setattr(search, "PROCESSES", 1)
    one = (Tunable("float.Classifier", default=False, others=(True,)),)
    monkeypatch.setattr(search.Variants, "space", lambda variants: one)
    documents = []
    for _ in range(2):
        code = run([*words, "--target", far.target])
        out, err = capfd.readouterr()
        assert code == 0, err
        documents.append(json.loads(out)["placement"])
    found, again = documents
    assert (found["target"], found["reused"]) == (far.target, False)
    assert [trial["changed"] for trial in found["rounds"][0]["trials"]] == [{"float.Classifier": True}]
    assert found["machine"]["cpu"]
    assert found["runtime"]
    assert again == {**found, "reused": True}
