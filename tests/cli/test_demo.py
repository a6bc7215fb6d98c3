"""`emca-deploy demo --task detection`: what it refuses, and the whole walk."""

import shutil
from pathlib import Path

import pytest

from emca_deploy.cli import run
from emca_deploy.data.bundled import detection_sample
from emca_deploy.errors import InputError
from emca_deploy.results.deploy import read_deploy_report

SAMPLE = Path(__file__).parents[2] / "examples/data"


@pytest.mark.parametrize("missing", ["mask_rcnn_emca_eca_resnet18_fpn.safetensors", "test_scenes.json"])
def test_a_missing_file_of_the_sample_is_named(missing, tmp_path, refused):
    for name in ("mask_rcnn_emca_eca_resnet18_fpn.safetensors", "calibration_scenes.zip", "test_scenes.zip", "test_scenes.json"):
        if name != missing:
            (tmp_path / name).touch()
    message = refused("demo", "--task", "detection", "--data", tmp_path, "-o", tmp_path / "out")
    assert missing in message
    assert "examples/data" in message
    assert not (tmp_path / "out").exists()


def test_the_sample_in_the_package_is_not_looked_for_elsewhere(tmp_path, refused):
    assert "--data" in refused("demo", "--data", tmp_path, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # exports and calibrates a Mask R-CNN
def test_the_demo_of_detection_shows_int8_close_to_fp32(tmp_path):
    for library in ("torch", "openvino", "pycocotools"):
        pytest.importorskip(library)
    try:
        sample = detection_sample()
    except InputError:
        pytest.skip("the sample detector is not in this checkout")
    for path in vars(sample).values():
        shutil.copy(path, tmp_path)
    output = tmp_path / "out"
    command = ["demo", "--task", "detection", "--data", tmp_path, "-o", output, "--duration", "0.5", "--limit", "60"]
    assert run([*map(str, command), "--threads", "1"]) == 0
    report = read_deploy_report(output)
    assert [c.name for c in report.candidates] == ["onnxruntime fp32", "openvino fp32", "onnxruntime int8", "openvino int8"]
    for candidate in report.candidates:
        accuracy = candidate.accuracy
        assert (accuracy.task, accuracy.samples) == ("detection", 60)
        assert accuracy.box.ap > 40
        assert accuracy.mask.ap > 40
        assert accuracy.reference.box_ap_drop < 3
        assert accuracy.reference.agreement > 90
    assert "Average precision" in (output / "report.html").read_text()
