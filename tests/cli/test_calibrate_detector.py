"""`calibrate` of a small detector and `validate` of what it writes, on ONNX Runtime and OpenVINO."""

import json

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


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_an_int8_detector_agrees_with_its_float_form(detector, backend, capsys):
    pytest.importorskip(backend)
    graph = calibrated(detector, "model", backend, "--json")
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
