"""Detectors in fp16: what stays float32, and how far boxes and scores move."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from detector_graphs import write_detector
from refusals import refusing

from emca_deploy.errors import GateError
from emca_deploy.exporting import half_detector
from emca_deploy.exporting.detectors import export_detector
from emca_deploy.exporting.parity import outputs_by_name
from zoo.detectors import small_detector

SIZE = (64, 64)


@pytest.fixture(scope="module")
def images():
    return (torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(5)) * 4 - 2).numpy()


@pytest.fixture(scope="module", params=["retinanet", pytest.param("mask_rcnn", marks=pytest.mark.slow)])
def exported(request, images, tmp_path_factory):
    """An fp16 file of a small detector, what its export says, and PyTorch's own outputs."""
    path = tmp_path_factory.mktemp(request.param) / "fp16.onnx"
    module = small_detector(request.param).eval()
    roi = None if request.param == "retinanet" else "gridsample"
    made = export_detector(module, images, path, batch=1, opset=20, part="full", roi=roi, half=True)
    with torch.inference_mode():
        expected = {name: value.numpy() for name, value in module(torch.from_numpy(images)).items()}
    return path, made, expected


def test_boxes_stay_float32_and_convolutions_do_not(exported):
    path, made, _ = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    post = [name for node in model.graph.node if node.name.startswith("post.") for name in node.output]
    assert post
    assert all(types.get(name) != onnx.TensorProto.FLOAT16 for name in post)
    heads = [node for node in model.graph.node if node.op_type == "Conv" and node.name.startswith(("head", "fpn", "rpn", "roi"))]
    assert {weights[node.input[1]] for node in heads} == {onnx.TensorProto.FLOAT16}
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT32}
    assert made.half.graph.half_nodes > 20


def test_detections_move_by_roundings_only(exported, images):
    path, made, before = exported
    assert 0 < made.half.parity.max_rel <= made.half.tolerance < 0.1
    assert made.half.found.matched >= 0.9 * made.half.found.detections > 0
    found = outputs_by_name(path.read_bytes(), images)
    np.testing.assert_allclose(found["scores"][:, :5], before["scores"][:, :5], atol=0.02)
    assert made.half.to_dict()["found"]["detections"] == made.half.found.detections


def test_an_error_that_rounding_does_not_explain_is_refused(images, tmp_path, monkeypatch):
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(write_detector(tmp_path / "net.onnx"))))
    monkeypatch.setattr(half_detector, "half_tolerance", lambda count, size: 1e-9)
    with refusing(GateError, "scores"):
        half_detector.convert_detector(model, images[:1], ("scores",), 0.05)
