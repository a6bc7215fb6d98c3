"""`calibrate` of a small detector and `validate` of what it writes, on ONNX Runtime and OpenVINO."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from emca_deploy.cli import run
from zoo.detector_networks import one_stage_detector, two_stage_detector

LAST = {"rpn.objectness", "rpn.deltas", "roi.box.scores", "roi.box.deltas", "roi.mask.logits"}


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A folder with a detector, its dense part, a one-stage detector and images."""
    folder = tmp_path_factory.mktemp("detector")
    two_stage_detector(folder / "model.onnx", threshold=0.9)
    two_stage_detector(folder / "dense.onnx", part="dense")
    one_stage_detector(folder / "one.onnx")
    (folder / "images").mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
    return folder


def calibrated(folder, model, backend, *more):
    """Return the graph of the INT8 file and the JSON document."""
    output = folder / f"{model}.{backend}.int8.onnx"
    command = ["calibrate", str(folder / f"{model}.onnx"), "--data", str(folder / "images"), "--backend", backend]
    assert run([*command, "-o", str(output), "--threads", "1", *more]) == 0
    return onnx.load(output).graph


@pytest.mark.usefixtures("in_threads")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_an_int8_detector_agrees_with_its_float_form(detector, backend, capsys):
    pytest.importorskip(backend)
    cheap = ("--method", "mse:10", "--recover", "bias") if backend == "openvino" else ()
    graph = calibrated(detector, "model", backend, "--json", *cheap)
    made = json.loads(capsys.readouterr().out)
    assert made["quantized"]["weighted_operators"] >= 10
    assert [output.name for output in graph.output] == ["num_detections", "boxes", "scores", "labels", "masks"]
    quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert "fpn.add" in quantized
    assert quantized.isdisjoint(LAST)
    selected = {name for node in graph.node if node.op_type in ("TopK", "GatherElements", "Where") for name in node.output}
    assert quantized.isdisjoint(selected)
    file, reference = detector / f"model.{backend}.int8.onnx", detector / "model.onnx"
    validate = ["validate", str(file), "--backend", backend, "--data", str(detector / "images"), "--reference", str(reference)]
    assert run([*validate, "--threads", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reference"]["box"] is None


@pytest.mark.parametrize("model", ["dense", "one"])
def test_a_dense_part_and_a_one_stage_detector(detector, model):
    graph = calibrated(detector, model, "openvino", "--recover", "none", "--method", "minmax")
    inputs = {output: node.input[0] for node in graph.node for output in node.output if node.op_type == "DequantizeLinear"}
    layers = [node for node in graph.node if node.op_type == "Conv"]
    assert len(layers) == 8
    assert all(node.input[0] in inputs and node.input[1] in inputs for node in layers)


@pytest.fixture
def within(detector):
    """Return a command that calibrates within a gate, on other images with one annotated object each."""
    pytest.importorskip("pycocotools")
    folder = detector / "val"
    if not folder.exists():
        folder.mkdir()
        objects, images = [], []
        for index, pixels in enumerate(np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), np.uint8)):
            Image.fromarray(pixels).save(folder / f"{index}.png")
            images.append({"id": index, "file_name": f"{index}.png", "height": 32, "width": 32})
            where = {"bbox": [4, 4, 14, 14], "area": 196, "segmentation": [[4, 4, 18, 4, 18, 18, 4, 18]]}
            objects.append({"id": index + 1, "image_id": index, "category_id": 1, "iscrowd": 0, **where})
        categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
        document = {"images": images, "annotations": objects, "categories": categories}
        (detector / "val.json").write_text(json.dumps(document))
    cheap = ["--recover", "none", "--method", "minmax", "--threads", "1", "--max-drop", "50"]
    data = ["--data", str(detector / "images"), "--val", str(folder), "-o", str(detector / "gated.onnx")]
    return ["calibrate", str(detector / "model.onnx"), "--backend", "onnxruntime", *data, *cheap]


@pytest.mark.usefixtures("in_threads")
def test_the_gate_is_on_the_drops_of_average_precision(within, detector, capsys):
    assert run([*within, "--annotations", str(detector / "val.json"), "--json"]) == 0
    gate = json.loads(capsys.readouterr().out)["gate"]
    (step,) = gate["steps"]
    assert [figure["name"] for figure in step["figures"]] == ["box AP", "mask AP"]
    assert (step["top1"], gate["top1_fp32"], gate["images"]) == (None, None, 4)
    manifest = json.loads(Path(f"{detector / 'gated.onnx'}.manifest.json").read_text())
    assert manifest["details"]["gate"]["figures"] == step["figures"]
    assert run([*within, "--annotations", str(detector / "val.json")]) == 0
    assert "box AP" in capsys.readouterr().out


def test_what_a_detector_cannot_have_is_refused_before_the_work(within, detector, capsys):
    plain = within[: within.index("--recover")]
    plain = [word for index, word in enumerate(plain) if "--val" not in plain[max(0, index - 1) : index + 1]]
    refusals = [
        (within, "annotations"),
        ([*plain, "--annotations", str(detector / "val.json")], "--val"),
        ([*plain, "--recover", "finetune"], "--recover finetune"),
        ([*plain, "--placement", "measured"], "--placement measured"),
        ([*plain, "--keep-float", "neck.*"], "--keep-float neck.*"),
    ]
    for command, named in refusals:
        assert run(command) == 2
        assert named in capsys.readouterr().err
    dense = [str(detector / "dense.onnx") if word.endswith("model.onnx") else word for word in within]
    assert run([*dense, "--annotations", str(detector / "val.json")]) == 2
    assert "dense part" in capsys.readouterr().err


def test_sensitivity_of_a_detector_has_no_flips(detector, capsys):
    command = ["sensitivity", str(detector / "one.onnx"), "--data", str(detector / "images"), "--backend", "onnxruntime"]
    assert run([*command, "--samples", "4", "--threads", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {unit["name"] for unit in report["units"]} >= {"head.conv", "fpn.output.0", "backbone.conv"}
    assert report["int8"]["flips_percent"] is None
    assert 5 < report["int8"]["sqnr_db"] < 60
