"""What each backend's recipe quantizes in a detector, and what it leaves in float."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from emca_deploy.backends.registry import find_recipe
from emca_deploy.calibration.graphs.graph import load_graph
from emca_deploy.calibration.placement.coverage import measure_coverage
from emca_deploy.calibration.placement.place import place
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.placement.quantize import quantize_weight
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.canonical.marks import compared_values
from zoo.detector_networks import one_stage_detector, two_stage_detector

BACKBONE = ("backbone.conv", "backbone.conv_1", "fpn.lateral.0", "fpn.lateral.1", "fpn.output.0")
RPN, RPN_LAST = ("rpn.conv",), ("rpn.objectness", "rpn.deltas")
HEADS = ("roi.box.fc6", "roi.box.scores", "roi.box.deltas", "roi.mask.convs.0")
HEAD, HEAD_LAST = ("head.conv",), ("head.logits", "head.deltas")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors")
    return {
        "two-stage": two_stage_detector(folder / "two.onnx"),
        "dense": two_stage_detector(folder / "dense.onnx", part="dense"),
        "one-stage": one_stage_detector(folder / "one.onnx"),
    }


@pytest.mark.parametrize(
    ("kind", "backend", "quantized"),
    [
        ("two-stage", "openvino", (*BACKBONE, *RPN, *RPN_LAST, *HEADS, "roi.mask.upsample", "roi.mask.logits")),
        ("two-stage", "onnxruntime", (*BACKBONE, *RPN, *HEADS)),
        ("two-stage", "tensorrt", (*BACKBONE[1:], *RPN, *RPN_LAST, *HEADS, "roi.mask.upsample", "roi.mask.logits")),
        ("dense", "openvino", (*BACKBONE, *RPN, *RPN_LAST)),
        ("dense", "onnxruntime", (*BACKBONE, *RPN)),
        ("dense", "tensorrt", (*BACKBONE[1:], *RPN, *RPN_LAST)),
        ("one-stage", "openvino", (*BACKBONE, *HEAD, *HEAD_LAST)),
        ("one-stage", "onnxruntime", (*BACKBONE, *HEAD)),
        ("one-stage", "tensorrt", (*BACKBONE[1:], *HEAD, *HEAD_LAST)),
    ],
)
def test_layers_of_each_placement(files, kind, backend, quantized):
    graph = load_graph(files[kind]).graph
    placement = place(graph, find_recipe(backend))
    assert {node.name for node in placement.weighted} == set(quantized)
    last = {value.name for value in compared_values(graph)}
    assert last.isdisjoint(value.name for value in placement.edges)
    readers = {node.name for edges in placement.edges.values() for node, _ in edges}
    assert not {name for name in readers if str(name).startswith("post.") and "crop" not in str(name)}
    reasons = {layer.name: layer.reason for layer in measure_coverage(graph, placement).float_layers}
    assert reasons.keys() == {node.name for node in graph if node.op_type in ("Conv", "Gemm", "ConvTranspose")} - set(quantized)


def test_repeated_numbers_keep_their_range(files):
    graph = load_graph(files["two-stage"]).graph
    placement = place(graph, find_recipe("onnxruntime"))
    assert {taker.name: giver.name for taker, giver in placement.same.items()} == {"fpn.resize": "fpn.lateral.1"}


def test_a_transposed_convolution_computes_with_its_own_channels(files):
    """Weights (inputs, outputs, 2, 2) have one scale for each output; the result is that of rounded operands."""
    model = load_graph(files["two-stage"])
    graph = model.graph
    weight = graph.node("roi.mask.upsample").inputs[1].const_value.numpy()
    bias = graph.node("roi.mask.upsample").inputs[2].const_value.numpy()
    placement = place(
        graph, find_recipe("openvino", 8), ["backbone.*", "fpn.*", "rpn.*", "roi.box.*", "roi.mask.[cl]*", "post.*"]
    )
    counts = insert_qdq(model, placement, {"roi.mask.relu": TensorRange(0.0, 51.0)})
    assert counts.weighted == 1
    dequantize = graph.node("roi.mask.upsample").inputs[1].producer()
    assert dequantize.attributes.get_int("axis") == 1
    integers, scales = quantize_weight(weight, 1)
    assert np.array_equal(dequantize.inputs[0].const_value.numpy(), integers)
    np.testing.assert_allclose(scales, np.abs(weight).max(axis=(0, 2, 3)) / 127, rtol=1e-6)
    graph.outputs[:] = [graph.node(name).outputs[0] for name in ("roi.mask.relu", "roi.mask.upsample")]
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    read, found = session.run(None, {"images": image})
    rounded = np.clip(np.rint(read / 0.2), 0, 255) * 0.2
    wanted = np.einsum("nchw,coij->nohiwj", rounded, integers * scales[None, :, None, None])
    np.testing.assert_allclose(found, wanted.reshape(found.shape) + bias[:, None, None], atol=2e-3)
