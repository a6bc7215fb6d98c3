"""Exported detectors, against PyTorch, against the numpy post-processing, and on every runtime."""

import re
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from refusals import refusing

from emca_deploy.errors import InputError
from emca_deploy.exporting import detectors
from emca_deploy.exporting.detection_parity import check_detections
from emca_deploy.networks.registry import create_model
from emca_deploy.tasks.detection_post import greedy_nms, rcnn_detections, retinanet_detections
from zoo.detectors import small_detector, small_detectors

SIZES = {"retinanet": (96, 128), "faster_rcnn": (64, 96), "mask_rcnn": (96, 64)}
NAMES = re.compile(r"(backbone|fpn|rpn|head|roi\.box|roi\.mask|post)\.")


def images_of(kind, count=2):
    generator = torch.Generator().manual_seed(5)
    return (torch.rand(count, 3, *SIZES[kind], generator=generator) * 4 - 2).numpy()


@pytest.fixture(
    scope="module",
    params=[("retinanet", None), pytest.param(("faster_rcnn", "gridsample"), marks=pytest.mark.slow), ("mask_rcnn", "roialign")],
)
def exported(request, tmp_path_factory):
    """A kind of detector, the module, its file, and what the export says of it."""
    kind, roi = request.param
    module = small_detector(kind).eval()
    path = tmp_path_factory.mktemp(kind) / "detector.onnx"
    made = detectors.export_detector(module, images_of(kind), path, batch=1, opset=20, part="full", roi=roi)
    return kind, module, path, made


def run(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    each = [session.run(None, {"images": image[None]}) for image in images]
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*each, strict=True), strict=True)}


def host_outputs(kind, module, images):
    """Return what the numpy post-processing makes of PyTorch's dense outputs, as outputs of fixed shapes."""
    with torch.inference_mode():
        dense = {name: value.numpy() for name, value in module.dense(torch.from_numpy(images)).items()}
    size = images.shape[2:]
    if kind == "retinanet":
        found = retinanet_detections(dense, module.config, size)
    else:
        weights = {name: value.numpy() for name, value in module.state_dict().items()}
        found = rcnn_detections(dense, weights, module.config, size)
    rows, side = module.config.max_detections, module.config.mask_size
    shapes = {"boxes": (rows, 4), "scores": (rows,), "labels": (rows,), "masks": (rows, side, side)}
    outputs = {"num_detections": np.array([len(one.scores) for one in found])}
    for name, shape in shapes.items():
        arrays = [getattr(one, name) for one in found]
        if arrays[0] is not None:
            outputs[name] = np.stack([np.concatenate([each, np.zeros((rows - len(each), *shape[1:]))]) for each in arrays])
    return outputs


def test_every_detection_is_that_of_pytorch(exported):
    _, module, _, made = exported
    assert made.parity.found.detections == made.parity.found.matched > 20
    assert made.nms_rounds >= 2 * made.longest_chain > 0
    assert made.config["nms_rounds"] == made.nms_rounds
    assert made.config["score_threshold"] == module.config.score_threshold


def test_every_detection_is_that_of_greedy_suppression_and_of_each_level_cropped_alone(exported):
    kind, module, path, _ = exported
    images = images_of(kind, 4)
    found = check_detections(host_outputs(kind, module, images), run(path, images), module.config.score_threshold)
    assert found.matched > 40


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mask_rcnn", {"plus_one": True, "anchor_rounding": "legacy", "roi_aligned": False}),
        ("faster_rcnn", {"plus_one": True, "roi_plus_one": False, "rpn_min_size": 4.0, "box_min_size": 3.0}),
        ("faster_rcnn", {"anchor_rounding": "nearest", "anchor_strides": "divided", "rpn_weights": (10.0, 10.0, 5.0, 5.0)}),
        ("retinanet", {"anchor_centre": 0.5, "p6_from": "c5", "relu_before_p7": False, "nms_threshold": 0.3}),
    ],
)
def test_the_numpy_post_processing_knows_every_convention(kind, options):
    module, images = small_detector(kind, **options).eval(), images_of(kind)
    with torch.inference_mode(), detectors.settled(module):
        expected = {name: value.numpy() for name, value in module(torch.from_numpy(images)).items()}
    found = check_detections(expected, host_outputs(kind, module, images), module.config.score_threshold)
    assert found.matched > 15


def test_openvino_finds_the_same(exported):
    openvino = pytest.importorskip("openvino")
    kind, module, path, _ = exported
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = images_of(kind, 3)
    each = [compiled({"images": image[None]}) for image in images]
    theirs = {value.any_name: np.concatenate([one[value] for one in each]) for value in compiled.outputs}
    assert check_detections(run(path, images), theirs, module.config.score_threshold).matched > 30


def test_the_file_has_fixed_shapes_and_readable_names(exported):
    kind, module, path, _ = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    rows, side = module.config.max_detections, module.config.mask_size
    shapes = {value.name: [each.dim_value for each in value.type.tensor_type.shape.dim] for value in model.graph.output}
    wanted = {"num_detections": [1], "boxes": [1, rows, 4], "scores": [1, rows], "labels": [1, rows]}
    assert shapes == wanted | ({"masks": [1, rows, side, side]} if kind == "mask_rcnn" else {})
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"NonMaxSuppression", "NonZero", "Loop", "If", "Shape", "BatchNormalization"}
    assert ("RoiAlign" in kinds, "GridSample" in kinds) == (kind == "mask_rcnn", kind == "faster_rcnn")
    assert [node.name for node in model.graph.node if not NAMES.match(node.name)] == []
    assert all(value.type.tensor_type.shape.dim or value.type.tensor_type.elem_type for value in model.graph.value_info)


def test_roi_align_states_what_runtimes_read_differently(exported):
    kind, _, path, _ = exported
    found = [node for node in onnx.load(path).graph.node if node.op_type == "RoiAlign"]
    assert len(found) == (2 if kind == "mask_rcnn" else 0)
    for node in found:
        stated = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        assert (stated["sampling_ratio"], stated["coordinate_transformation_mode"]) == (2, b"half_pixel")


@pytest.mark.slow
def test_the_dense_part_ends_before_boxes_are_selected(tmp_path):
    for kind in SIZES:
        module, path = small_detector(kind).eval(), tmp_path / f"{kind}.onnx"
        made = detectors.export_detector(module, images_of(kind), path, batch=2, opset=20, part="dense", roi=None)
        assert (made.parity.found, made.nms_rounds, made.roi) == (None, None, None)
        with torch.inference_mode():
            expected = module.dense(torch.from_numpy(images_of(kind)))
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        assert names == list(expected)
        for name, array in zip(names, session.run(None, {"images": images_of(kind)}), strict=True):
            np.testing.assert_allclose(array, expected[name], rtol=1e-3, atol=1e-4)
        assert not {"TopK", "GatherElements"} & {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("aligned", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_adaptive_number_of_samples_needs_the_operator(tmp_path, aligned):
    module = small_detector("faster_rcnn", roi_sampling_ratio=0, roi_aligned=aligned).eval()
    images, path = images_of("faster_rcnn"), tmp_path / "adaptive.onnx"
    with refusing(InputError, "adaptive"):
        detectors.check_detector(module, SIZES["faster_rcnn"], "full", "gridsample")
    made = detectors.export_detector(module, images, path, batch=1, opset=20, part="full", roi="roialign")
    assert made.parity.found.matched > 20
    expected = host_outputs("faster_rcnn", module, images)
    assert check_detections(expected, run(path, images), module.config.score_threshold).matched > 20


@pytest.mark.parametrize(
    ("kind", "size", "part", "roi", "words"),
    [
        ("faster_rcnn", (64, 80), "full", None, "multiples of 32"),
        ("retinanet", 80, "full", None, "multiples of 32"),
        ("retinanet", 128, "full", "roialign", "--roi"),
        ("mask_rcnn", 64, "dense", "gridsample", "--roi"),
    ],
)
def test_options_that_do_not_fit_a_detector_are_refused(kind, size, part, roi, words):
    with refusing(InputError, words):
        detectors.check_detector(small_detector(kind), size, part, roi)


def test_the_rounds_of_suppression_suffice_for_a_long_chain():
    """Thirty boxes, each of which overlaps the next one alone: every second one remains."""
    from emca_deploy.networks.detectors.nms import Suppression

    boxes = torch.tensor([[10.0 * at, 0.0, 10.0 * at + 30, 20.0] for at in range(30)])
    scores = torch.linspace(0.9, 0.1, 30)
    valid = torch.ones(30)
    suppression = Suppression(0.4, 4)
    settled, needed = suppression.settle(boxes, valid)
    kept = greedy_nms(boxes.numpy(), scores.numpy(), 0.4).tolist()
    assert needed > 20
    assert torch.nonzero(settled)[:, 0].tolist() == kept
    assert torch.nonzero(suppression(boxes, valid))[:, 0].tolist() != kept
    suppression.rounds = needed
    assert torch.nonzero(suppression(boxes, valid))[:, 0].tolist() == kept == list(range(0, 30, 2))


def test_the_rounds_are_those_that_the_images_need():
    module = small_detector("retinanet").eval()
    images = torch.from_numpy(images_of("retinanet"))
    with torch.inference_mode():
        with detectors.settled(module) as rounds:
            exact = module(images)
        assert max(rounds) > 1
        detectors.set_rounds(module, max(rounds))
        enough = module(images)
    assert all(torch.equal(enough[name], exact[name]) for name in exact)


@pytest.mark.parametrize("backbone", ["emca_srm_resnet10", "pkcam_eca_resnet10"])
def test_every_backbone_has_readable_names(tmp_path, backbone):
    with small_detectors():
        module = create_model(f"retinanet_{backbone}_fpn", 3, fpn_channels=16).eval()
    path = tmp_path / "detector.onnx"
    detectors.export_detector(module, images_of("retinanet"), path, batch=1, opset=20, part="dense", roi=None)
    names = [node.name for node in onnx.load(path).graph.node]
    assert len(set(names)) == len(names)
    assert {"backbone.stem.conv", "backbone.stage2.block0.conv1", "backbone.stage2.block0.shortcut.conv"} <= set(names)
    assert [name for name in names if not NAMES.match(name)] == []


@pytest.mark.parametrize("roi", ["roialign", pytest.param("gridsample", marks=pytest.mark.slow)])
def test_a_batch_of_two_images_has_the_detections_of_each(tmp_path, roi):
    module, path = small_detector("faster_rcnn").eval(), tmp_path / "two.onnx"
    images = images_of("faster_rcnn", 3)  # the last batch is filled
    made = detectors.export_detector(module, images, path, batch=2, opset=20, part="full", roi=roi)
    assert made.parity.found.matched == made.parity.found.detections > 30
    assert [value.type.tensor_type.shape.dim[0].dim_value for value in onnx.load(path).graph.output] == [2, 2, 2, 2]


def test_a_detector_can_have_fewer_rows():
    module = small_detector("retinanet").eval()
    before = module.config
    detectors.configure_module(module, max_detections=7)
    with torch.inference_mode():
        assert module(torch.from_numpy(images_of("retinanet")))["boxes"].shape == (2, 7, 4)
    assert module.config == replace(before, max_detections=7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SIZES)
def test_tensorrt_rtx_builds_an_engine_of_the_grid_form(kind, tmp_path):
    trt = pytest.importorskip("tensorrt_rtx")
    path, roi = tmp_path / f"{kind}.onnx", None if kind == "retinanet" else "gridsample"
    module = small_detector(kind).eval()
    detectors.export_detector(module, images_of(kind), path, batch=1, opset=20, part="full", roi=roi)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    assert parser.parse_from_file(str(path)), [parser.get_error(at).desc() for at in range(parser.num_errors)]
    outputs = {network.get_output(at).name: tuple(network.get_output(at).shape) for at in range(network.num_outputs)}
    assert outputs["boxes"] == (1, module.config.max_detections, 4)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert engine.nbytes > path.stat().st_size
