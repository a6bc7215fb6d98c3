"""`emca-deploy export` of detectors as a user runs it."""

import json
import subprocess
import sys

import onnx
import pytest

from emca_deploy.cli import run
from zoo.detectors import small_detectors

FRESH = ["export", "--random-init", "--num-classes", "3"]
FASTER = [*FRESH, "--arch", "faster_rcnn_emca_eca_resnet10_fpn", "--image-size", "64"]
RETINANET = [*FRESH, "--arch", "retinanet_eca_resnet10_fpn"]


@pytest.fixture(autouse=True)
def small():
    with small_detectors():
        yield


def test_a_detector_becomes_one_file_and_its_manifest(tmp_path, capsys):
    model = tmp_path / "retinanet.onnx"
    assert run([*RETINANET, "--image-size", "128", "--max-detections", "30", "-o", str(model), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["arch"], document["num_classes"], document["task"]) == ("retinanet_eca_resnet10_fpn", 3, "detection")
    assert document["parity"]["max_rel"] < 1e-4
    assert document["parity"]["found"]["images"] > 4
    manifest = json.loads((tmp_path / "retinanet.onnx.manifest.json").read_text())
    details, preprocessing = manifest["details"], manifest["preprocessing"]
    assert (details["task"], details["batch"], details["detector"]["part"]) == ("detection", 1, "full")
    assert details["detector"]["config"]["max_detections"] == 30
    assert details["detector"]["nms_rounds"] >= 2 * details["detector"]["longest_chain"]
    assert (preprocessing["image_size"], preprocessing["resize"], preprocessing["pad"]) == (128, "letterbox", "end")
    outputs = {
        value.name: [each.dim_value for each in value.type.tensor_type.shape.dim] for value in onnx.load(model).graph.output
    }
    assert outputs == {"num_detections": [1], "boxes": [1, 30, 4], "scores": [1, 30], "labels": [1, 30]}


@pytest.mark.slow
def test_a_checkpoint_keeps_its_conventions_and_the_names_of_its_classes(tmp_path, capsys):
    safetensors = pytest.importorskip("safetensors.torch")
    from emca_deploy.results.codec import to_json
    from zoo.detectors import small_detector

    module = small_detector("mask_rcnn", class_names=("shirt", "shoe", "bag"), nms_threshold=0.6)
    checkpoint, model = tmp_path / "own.safetensors", tmp_path / "own.onnx"
    safetensors.save_file(module.state_dict(), checkpoint, {"detector": json.dumps(to_json(module.config))})
    assert run(["export", str(checkpoint), "--image-size", "64x96", "--roi", "gridsample", "-o", str(model), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    config, found = document["detector"]["config"], document["parity"]["found"]
    assert (config["class_names"], config["nms_threshold"]) == (["shirt", "shoe", "bag"], 0.6)
    assert (document["num_classes"], document["detector"]["roi"]) == (3, "gridsample")
    assert found["matched"] == found["detections"] > 5 * found["images"]
    assert [value.name for value in onnx.load(model).graph.output] == ["num_detections", "boxes", "scores", "labels", "masks"]


@pytest.mark.slow
def test_what_is_printed_says_what_was_compared(tmp_path, capsys):
    assert run([*RETINANET, "--image-size", "128", "--part", "dense", "-o", str(tmp_path / "dense.onnx")]) == 0
    printed = capsys.readouterr()
    assert "parity with PyTorch on 2 images" in printed.out
    assert len(onnx.load(tmp_path / "dense.onnx").graph.output) == 10


@pytest.mark.slow
def test_a_detector_of_50_layers_is_exported_within_six_gib(tmp_path):
    """At the size and with the classes of COCO; its memory is that of a process of its own."""
    arguments = ["--random-init", "--arch", "faster_rcnn_emca_eca_resnet50_fpn", "--num-classes", "80", "--image-size", "640"]
    program = (
        "import resource, sys; from emca_deploy.cli import run; status = run(sys.argv[1:]);"
        "print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    model = tmp_path / "faster.onnx"
    command = [sys.executable, "-c", program, "export", *arguments, "-o", str(model)]
    status, kib = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
    assert status == "0"
    assert float(kib) < 6 * 2**20
    found = json.loads(model.with_name("faster.onnx.manifest.json").read_text())["details"]["parity"]["found"]
    assert found["matched"] == found["detections"] > 30 * found["images"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*FASTER[:-1], "80"], "multiples of 32"),
        ([*RETINANET, "--image-size", "144"], "multiples of 32"),
        ([*RETINANET, "--image-size", "128", "--roi", "gridsample"], "--roi"),
        ([*FASTER, "--part", "dense", "--roi", "gridsample"], "--roi"),
        ([*FASTER, "--form", "dla"], "--form dla"),
        ([*FRESH, "--arch", "resnet10", "--image-size", "64", "--part", "dense"], "--part"),
        ([*FRESH, "--arch", "resnet10", "--image-size", "64", "--roi", "roialign"], "--roi"),
        ([*FRESH, "--arch", "resnet10", "--image-size", "64", "--max-detections", "5"], "--max-detections"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_work(tmp_path, capsys, arguments, words):
    assert run([*arguments, "-o", str(tmp_path / "model.onnx")]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
