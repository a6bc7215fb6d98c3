"""Detectors through a real sshd: measured, validated and built there as here."""

import json

import numpy as np
import pytest
from coco_scenes import scene_document, write_document
from detector_graphs import write_dense_retinanet, write_detector
from PIL import Image

from emca_deploy.artifacts import read_manifest
from emca_deploy.cli import run

pytest.importorskip("pycocotools")
pytestmark = pytest.mark.usefixtures("in_threads")
SAID = ("--resize", "letterbox", "--pad", "end", "--pad-value", "mean", "--threads", "1")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    document = scene_document(4, 2)
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for image in document["images"]:
        pixels = rng.integers(0, 256, (image["height"], image["width"], 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / image["file_name"])
    write_document(folder, document)
    write_detector(folder / "whole.onnx")
    write_dense_retinanet(folder / "dense.onnx")
    return folder


def document_of(capfd, *words):
    code = run([*map(str, words), "--json"])
    out, err = capfd.readouterr()
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("name", [pytest.param("whole", marks=pytest.mark.slow), "dense"])
def test_detections_over_there_are_those_of_here(far, scenes, capfd, name):
    words = [
        "validate",
        scenes / f"{name}.onnx",
        "--data",
        scenes / "images",
        "--annotations",
        scenes / "annotations.json",
        *SAID,
    ]
    found = [document_of(capfd, *words, "--target", target) for target in (far.target, "cpu")]
    for document in found:
        document.pop("images_per_s")
    assert found[0] == found[1]
    assert found[0]["detections"] > 0


@pytest.mark.slow
def test_an_engine_is_built_and_measured_there(far, scenes, tmp_path, capfd):
    engine = tmp_path / "whole.ort"
    document_of(capfd, "build", scenes / "whole.onnx", "--backend", "onnxruntime", "-o", engine, "--target", far.target)
    assert read_manifest(engine).details["built_on"] == far.target
    quick = ("--duration", "0.2", "--max-duration", "0.2", "--warmup", "0", "--no-telemetry", "--threads", "1")
    measured = document_of(capfd, "profile", engine, *quick, "--target", far.target)
    assert measured["results"][0]["samples"] > 0
