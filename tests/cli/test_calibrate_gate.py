"""`emca-deploy calibrate --max-drop` as a user runs it, on an untrained network and twelve images."""

import json

import pytest

from emca_deploy.cli import run

pytestmark = pytest.mark.usefixtures("in_threads")  # golden/test_json.py has the gate with processes


@pytest.fixture
def arguments(own, flat_images, tmp_path):
    fixed = ["--backend", "onnxruntime", "--threads", 1, "--samples", 4, "--recover", "none", "--method", "minmax"]
    return ["calibrate", own, "--data", flat_images, "-o", tmp_path / "int8.onnx", *fixed]


def call(*words):
    return run([str(word) for word in words])


def test_inside_the_gate_the_document_has_the_step(arguments, labelled_images, tmp_path, capsys):
    assert call(*arguments, "--max-drop", 99, "--val", labelled_images, "--json") == 0
    gate = json.loads(capsys.readouterr().out)["gate"]
    assert (gate["reached"], gate["images"], gate["measured_with"], gate["simulated"]) == (True, 12, "onnxruntime", False)
    (step,) = gate["steps"]
    assert step["kept_float"] == []
    assert step["top1_drop_ci95"][0] <= step["top1_drop"] <= step["top1_drop_ci95"][1] <= 99
    assert (tmp_path / "int8.onnx").is_file()


def test_out_of_reach_exits_4_with_the_best_model_and_the_reason(arguments, labelled_images, tmp_path, capsys, files):
    assert call(*arguments, "--max-drop", 1, "--val", labelled_images) == 4
    shown = capsys.readouterr()
    assert "top-1" in shown.out
    assert "nothing" in shown.out
    error, remedy = [line for line in shown.err.splitlines() if line.startswith(("error: ", "  try: "))]
    assert "--max-drop 1" in error
    assert "12 images are too few" in error
    assert "written" in error
    assert "--max-drop" in remedy
    assert "Traceback" not in shown.err
    assert files(tmp_path) == {
        "int8.onnx", "int8.onnx.manifest.json", "model/model.onnx", "model/model.onnx.manifest.json",
        "model/model.ranges.json", "model/model.onnxruntime.search.json",
    }  # fmt: skip


def test_the_document_is_whole_where_the_gate_is_not_reached(arguments, labelled_images, capsys):
    assert call(*arguments, "--max-drop", 1, "--val", labelled_images, "--json") == 4
    assert json.loads(capsys.readouterr().out)["gate"]["reached"] is False


def test_without_a_gate_the_document_has_none(arguments, capsys):
    assert call(*arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["gate"] is None


def test_bad_input_is_refused(arguments, labelled_images, flat_images, tmp_path, refused, files):
    before = files(tmp_path)
    assert "--val" in refused(*arguments, "--max-drop", 1)
    assert "--max-drop" in refused(*arguments, "--val", labelled_images)
    assert "no labels" in refused(*arguments, "--max-drop", 1, "--val", flat_images)
    assert str(tmp_path / "none") in refused(*arguments, "--max-drop", 1, "--val", tmp_path / "none")
    assert "--max-drop" in refused(*arguments, "--max-drop", -1, "--val", labelled_images)
    assert files(tmp_path) == before
