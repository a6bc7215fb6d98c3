"""A board as a target of `deploy`."""

import shutil
from pathlib import Path

import pytest

from emca_deploy._machine import find_gpus
from emca_deploy.api.parts import find_parts
from emca_deploy.errors import MissingError
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.targets.base import Part
from emca_deploy.targets.deployment import BuildStep, BuiltCandidate, Models
from emca_deploy.targets.jetson_board import JetsonTarget

BOARDS = Path(__file__).parents[2] / "data/boards"
no_gpu = pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here")


@pytest.fixture
def board(tmp_path, monkeypatch):
    place = tmp_path / "board"
    shutil.copytree(BOARDS / "nano", place)
    monkeypatch.setenv("EMCA_DEPLOY_BOARD_ROOT", str(place))
    return place


def test_refused_elsewhere():
    with pytest.raises(MissingError):
        find_parts(["jetson"])


@no_gpu
@pytest.mark.usefixtures("board")
def test_without_tensorrt_the_processor_is_used_and_that_is_said(tmp_path):
    (part,) = find_parts(["jetson"])
    found = part.deployment
    assert part.target == JetsonTarget()
    assert (found.backends, found.needs_half, found.int8_backends) == (("onnxruntime",), False, ("onnxruntime",))
    (note,) = found.notes
    spec = RunnerSpec(
        "fake", kwargs={"backend": "fake", "artifact": "fake:latency_ms=0.1"}, artifact="fake:latency_ms=0.1", backend="fake"
    )
    part = Part(part.target, found, (BuiltCandidate("fake", tmp_path, spec),))
    report = part.target.measure([part], 0.1)
    assert note in report.environment["board"]["warnings"]
    assert note in report.environment["board"]["notes"]
    assert note in report.results[0].warnings
    assert report.environment["board"]["after"]


@no_gpu
@pytest.mark.usefixtures("board")
def test_tensorrt_that_was_asked_for_must_be_there():
    with pytest.raises(MissingError):
        find_parts(["jetson"], ["tensorrt"])


@pytest.mark.usefixtures("board")
def test_the_backend_asked_for():
    (part,) = find_parts(["jetson"], ["onnxruntime"])
    assert (part.deployment.backends, part.deployment.notes) == (("onnxruntime",), ())


def test_a_candidate_runs_on_the_board(tmp_path):
    step = BuildStep("onnxruntime fp32", "onnxruntime", "fp32", "x.ort.onnx")
    (found,) = JetsonTarget().deployed(step, tmp_path / "x.ort.onnx", Models(None, tmp_path / "model.onnx"), 1)
    assert (found.spec.target, found.spec.backend) == ("jetson", "onnxruntime")
