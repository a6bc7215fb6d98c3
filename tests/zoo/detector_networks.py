"""Two-stage and one-stage detectors of a few layers each, written node by node, with the names and outputs of exported ones."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 32
CHANNELS = 16
ANCHORS = 8 * 8
REGIONS = 6
CLASSES = 2
OPSET = 20


class _Writer:
    """The nodes and constants of a graph."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, np.ndarray] = {}
        self.random = np.random.default_rng(seed)

    def constant(self, name: str, values, dtype=np.float32) -> str:
        self.stored[name] = np.asarray(values, dtype)
        return name

    def node(self, op_type: str, name: str, inputs: list[str], outputs: int = 1, **attributes) -> str:
        results = [name, *(f"{name}.{index}" for index in range(1, outputs))]
        self.nodes.append(helper.make_node(op_type, inputs, results, name, **attributes))
        return name

    def layer(self, op_type: str, name: str, source: str, shape: tuple[int, ...], gain: float = 1.0, **attributes) -> str:
        fan = np.prod(shape[1:]) if op_type == "Conv" else shape[0]
        bias = shape[1] if op_type == "ConvTranspose" or (op_type == "Gemm") else shape[0]
        self.constant(f"{name}.weight", gain * self.random.standard_normal(shape) * np.sqrt(2 / fan))
        self.constant(f"{name}.bias", self.random.standard_normal(bias) * 0.2)
        return self.node(op_type, name, [source, f"{name}.weight", f"{name}.bias"], **attributes)

    def conv(self, name: str, source: str, outputs: int, kernel: int = 3, stride: int = 1, inputs: int = CHANNELS, **more) -> str:
        pads, shape = [kernel // 2] * 4, (outputs, inputs, kernel, kernel)
        return self.layer("Conv", name, source, shape, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, **more)

    def relu(self, name: str, source: str) -> str:
        return self.node("Relu", name, [source])

    def reshape(self, name: str, source: str, shape: list[int]) -> str:
        return self.node("Reshape", name, [source, self.constant(f"{name}.shape", shape, np.int64)])

    def model(self, outputs: dict[str, tuple[list[int], int]]) -> onnx.ModelProto:
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
        ends = [helper.make_tensor_value_info(name, kind, shape) for name, (shape, kind) in outputs.items()]
        stored = [numpy_helper.from_array(array, name) for name, array in self.stored.items()]
        graph = helper.make_graph(self.nodes, "detector", [images], ends, stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _pyramid(to: _Writer) -> str:
    """Write a backbone of two stages and a pyramid of them; return its finest map, (1, C, 8, 8)."""
    stem = to.relu("backbone.relu", to.conv("backbone.conv", "images", CHANNELS, 3, 4, inputs=3))
    deep = to.relu("backbone.relu_1", to.conv("backbone.conv_1", stem, CHANNELS, 3, 2))
    to.conv("fpn.lateral.0", stem, CHANNELS, 1)
    to.conv("fpn.lateral.1", deep, CHANNELS, 1)
    scales = to.constant("fpn.scales", [1, 1, 2, 2])
    to.node("Resize", "fpn.resize", ["fpn.lateral.1", "", scales], mode="nearest", coordinate_transformation_mode="asymmetric")
    to.node("Add", "fpn.add", ["fpn.lateral.0", "fpn.resize"])
    return to.conv("fpn.output.0", "fpn.add", CHANNELS)


def _dense(to: _Writer, head: str, level: str, scores: str, classes: int) -> None:
    """Write a head with a tower of one convolution: `scores` (1, A, K) and `deltas_p2` (1, A, 4)."""
    tower = to.relu(f"{head}.relu", to.conv(f"{head}.conv", level, CHANNELS))
    for name, layer, size in ((scores, f"{head}.{scores[:-3]}", classes), ("deltas_p2", f"{head}.deltas", 4)):
        to.conv(layer, tower, size, 1, gain=3.0)
        to.node("Transpose", f"{layer}.transpose", [layer], perm=[0, 2, 3, 1])
        to.reshape(name, f"{layer}.transpose", [1, ANCHORS, size])


def _select(to: _Writer, prefix: str, scores: str, boxes: str, threshold: float) -> tuple[str, str]:
    """Write the choice of the best rows; return their scores (1, R), -1 where they are below a threshold, and boxes (1, R, 4)."""
    least, invalid = to.constant(f"{prefix}.least", threshold), to.constant(f"{prefix}.invalid", -1.0)
    to.node("Greater", f"{prefix}.greater", [scores, least])
    to.node("Where", f"{prefix}.where", [f"{prefix}.greater", scores, invalid])
    most = to.constant(f"{prefix}.most", [REGIONS], np.int64)
    to.node("TopK", f"{prefix}.topk", [f"{prefix}.where", most], 2, axis=1)
    to.reshape(f"{prefix}.rows", f"{prefix}.topk.1", [1, REGIONS, 1])
    to.node("Expand", f"{prefix}.expand", [f"{prefix}.rows", to.constant(f"{prefix}.wide", [1, REGIONS, 4], np.int64)])
    return f"{prefix}.topk", to.node("GatherElements", f"{prefix}.boxes", [boxes, f"{prefix}.expand"], axis=1)


def _crop(to: _Writer, prefix: str, level: str, boxes: str, bins: int) -> str:
    to.reshape(f"{prefix}.regions", boxes, [REGIONS, 4])
    numbers = to.constant(f"{prefix}.numbers", np.zeros(REGIONS), np.int64)
    attributes = {"output_height": bins, "output_width": bins, "sampling_ratio": 2, "spatial_scale": 0.25}
    return to.node("RoiAlign", f"{prefix}.roialign", [level, f"{prefix}.regions", numbers], **attributes)


def two_stage_detector(path: Path, threshold: float = 0.5, *, part: str = "full", seed: int = 0) -> Path:
    """Write a Mask R-CNN of one level; `threshold` decides how many proposals are valid."""
    to = _Writer(seed)
    level = _pyramid(to)
    _dense(to, "rpn", level, "objectness_p2", 1)
    if part == "dense":
        sides = {"objectness_p2": [1, ANCHORS, 1], "deltas_p2": [1, ANCHORS, 4], level: [1, CHANNELS, 8, 8]}
        return _save(to, path, {name: (shape, TensorProto.FLOAT) for name, shape in sides.items()})
    corners = 4.0 * np.stack(np.meshgrid(range(8), range(8)), -1).reshape(1, ANCHORS, 2)
    anchors = to.constant("post.anchors", np.concatenate([corners - 6, corners + 8], -1))
    to.node("Add", "post.decode", [anchors, "deltas_p2"])
    to.node("Sigmoid", "post.sigmoid", [to.reshape("post.objectness", "objectness_p2", [1, ANCHORS])])
    _, boxes = _select(to, "post.proposals", "post.sigmoid", "post.decode", threshold)
    crops = _crop(to, "post.crop_boxes", level, boxes, 3)
    to.node("Flatten", "roi.box.flatten", [crops])
    hidden = to.relu("roi.box.relu", to.layer("Gemm", "roi.box.fc6", "roi.box.flatten", (CHANNELS * 9, 24)))
    to.layer("Gemm", "roi.box.scores", hidden, (24, CLASSES))
    to.layer("Gemm", "roi.box.deltas", hidden, (24, 4))
    to.node("Softmax", "post.softmax", ["roi.box.scores"], axis=1)
    classes, last = to.reshape("post.classes", "post.softmax", [1, REGIONS, CLASSES]), to.constant("post.last", [2], np.int64)
    to.node("ReduceMax", "post.best", [classes, last], keepdims=0)
    to.node("Add", "post.moved", [boxes, to.reshape("post.deltas", "roi.box.deltas", [1, REGIONS, 4])])
    found, chosen = _select(to, "post.detections", "post.best", "post.moved", 0.0)
    _outputs(to, found, chosen)
    crops = _crop(to, "post.crop_masks", level, chosen, 4)
    x = to.relu("roi.mask.relu", to.conv("roi.mask.convs.0", crops, CHANNELS))
    to.layer("ConvTranspose", "roi.mask.upsample", x, (CHANNELS, 20, 2, 2), kernel_shape=[2, 2], strides=[2, 2])
    to.conv("roi.mask.logits", to.relu("roi.mask.relu_1", "roi.mask.upsample"), CLASSES, 1, inputs=20)
    to.reshape("post.masks.index", "labels", [REGIONS, 1, 1, 1])
    to.node("Cast", "post.masks.cast", ["post.masks.index"], to=TensorProto.INT64)
    to.node("Expand", "post.masks.expand", ["post.masks.cast", to.constant("post.masks.wide", [REGIONS, 1, 8, 8], np.int64)])
    to.node("GatherElements", "post.masks.gather", ["roi.mask.logits", "post.masks.expand"], axis=1)
    to.node("Sigmoid", "post.masks.sigmoid", ["post.masks.gather"])
    to.reshape("masks", "post.masks.sigmoid", [1, REGIONS, 8, 8])
    return _save(to, path, {**_DETECTIONS, "masks": ([1, REGIONS, 8, 8], TensorProto.FLOAT)})


def one_stage_detector(path: Path, *, seed: int = 0) -> Path:
    """Write a RetinaNet of one level."""
    to = _Writer(seed)
    _dense(to, "head", _pyramid(to), "logits_p2", CLASSES)
    to.node("Sigmoid", "post.sigmoid", ["logits_p2"])
    last = to.constant("post.last", [2], np.int64)
    to.node("ReduceMax", "post.best", ["post.sigmoid", last], keepdims=0)
    corners = 4.0 * np.stack(np.meshgrid(range(8), range(8)), -1).reshape(1, ANCHORS, 2)
    anchors = to.constant("post.anchors", np.concatenate([corners - 6, corners + 8], -1))
    found, chosen = _select(to, "post.detections", "post.best", to.node("Add", "post.decode", [anchors, "deltas_p2"]), 0.0)
    _outputs(to, found, chosen)
    return _save(to, path, _DETECTIONS)


def _outputs(to: _Writer, scores: str, boxes: str) -> None:
    """Write the outputs of a detector."""
    zero = to.constant("post.zero", 0.0)
    to.node("Greater", "post.valid", [scores, zero])
    to.node("Cast", "post.ones", ["post.valid"], to=TensorProto.INT32)
    to.node("ReduceSum", "num_detections", ["post.ones", to.constant("post.axis", [1], np.int64)], keepdims=0)
    to.node("Max", "scores", [scores, zero])
    to.node("Identity", "boxes", [boxes])
    to.node("Mod", "post.class", ["post.detections.topk.1", to.constant("post.class.count", CLASSES, np.int64)])
    to.node("Cast", "labels", ["post.class"], to=TensorProto.INT32)


_DETECTIONS = {
    "num_detections": ([1], TensorProto.INT32),
    "boxes": ([1, REGIONS, 4], TensorProto.FLOAT),
    "scores": ([1, REGIONS], TensorProto.FLOAT),
    "labels": ([1, REGIONS], TensorProto.INT32),
}


def _save(to: _Writer, path: Path, outputs: dict[str, tuple[list[int], int]]) -> Path:
    model = to.model(outputs)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path
