"""A board as a place of `deploy`."""

import shutil
from pathlib import Path

import pytest

from emca_deploy._machine import find_gpus
from emca_deploy.errors import MissingError
from emca_deploy.pipeline.board_place import JetsonPlace
from emca_deploy.pipeline.places import CpuPlace, GpuPlace, find_places

BOARDS = Path(__file__).parents[2] / "data/boards"
no_gpu = pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here")


@pytest.fixture
def board(tmp_path, monkeypatch):
    place = tmp_path / "board"
    shutil.copytree(BOARDS / "nano", place)
    monkeypatch.setenv("EMCA_DEPLOY_BOARD_ROOT", str(place))
    return place


def test_refused_elsewhere():
    with pytest.raises(MissingError, match="no Jetson board"):
        find_places(["jetson"])


@no_gpu
@pytest.mark.usefixtures("board")
def test_without_tensorrt_the_processor_is_used_and_that_is_said():
    (place,) = find_places(["jetson"])
    assert isinstance(place, JetsonPlace)
    assert (place.target, place.backends, place.gpu, place.needs_half) == ("jetson", ("onnxruntime",), None, False)
    with place.record() as record:
        assert "nothing was measured on the GPU" in record["board"]["warnings"][-1]
    assert record["board"]["after"]


@no_gpu
@pytest.mark.usefixtures("board")
def test_tensorrt_that_was_asked_for_must_be_there():
    with pytest.raises(MissingError):
        find_places(["jetson"], ["tensorrt"])


@pytest.mark.usefixtures("board")
def test_the_backend_asked_for():
    (place,) = find_places(["jetson"], ["onnxruntime"])
    assert isinstance(place, JetsonPlace)
    assert (place.backends, place.missing) == (("onnxruntime",), "")
    with place.record() as record:
        assert record["board"]["warnings"] == []  # at its fastest, clocks locked


def test_what_both_halves_need():
    place = JetsonPlace(
        "jetson", ("onnxruntime", "tensorrt"), CpuPlace("cpu", ("onnxruntime",)), GpuPlace("gpu", ("tensorrt",), "8.7")
    )
    assert place.placements == ("onnxruntime", "tensorrt")
    assert place.needs_half
