"""A small detector with the outputs of an exported one, whose detections depend on the image's pixels."""

from pathlib import Path

import numpy as np

DETECTIONS = 8
CLASSES = 4


def write_detector(path: Path, size: int = 64, *, masks: bool = True, noise: float = 0.0, threshold: float = 0.0) -> Path:
    """Write a graph whose boxes are fixed, and whose scores rise with the brightness of each box's area.

    `noise` moves the boxes; scores below `threshold` do not count.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 0.6, (DETECTIONS, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.2, 0.4, (DETECTIONS, 2))], axis=1) * size
    boxes = boxes + noise * rng.standard_normal(boxes.shape)
    weights = rng.standard_normal((3 * 8 * 8, DETECTIONS)) * 0.3
    constants = {
        "pool_shape": np.array([0, -1], np.int64),
        "weights": weights.astype(np.float32),
        "all_boxes": boxes[None].astype(np.float32),
        "all_labels": (np.arange(DETECTIONS)[None] % CLASSES).astype(np.int64),
        "most": np.array([DETECTIONS], np.int64),
        "least": np.array(threshold, np.float32),
        "grids": rng.random((1, DETECTIONS, 28, 28)).astype(np.float32),
        "axis": np.array([1], np.int64),
        "box_axis": np.array([2], np.int64),
    }
    nodes = [
        helper.make_node("AveragePool", ["images"], ["pooled"], kernel_shape=[size // 8] * 2, strides=[size // 8] * 2),
        helper.make_node("Reshape", ["pooled", "pool_shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["raw"]),
        helper.make_node("Sigmoid", ["raw"], ["unsorted"]),
        helper.make_node("TopK", ["unsorted", "most"], ["scores", "order"], axis=1),
        helper.make_node("Gather", ["all_labels", "order"], ["gathered"], axis=1),
        helper.make_node("Squeeze", ["gathered", "zero"], ["labels64"]),
        helper.make_node("Cast", ["labels64"], ["labels"], to=TensorProto.INT32),
        helper.make_node("Gather", ["all_boxes", "order"], ["boxes5"], axis=1),
        helper.make_node("Squeeze", ["boxes5", "zero"], ["boxes"]),
        helper.make_node("Greater", ["scores", "least"], ["counted"]),
        helper.make_node("Cast", ["counted"], ["counted32"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["counted32", "axis"], ["num_detections"], keepdims=0),
    ]
    constants["zero"] = np.array([0], np.int64)
    outputs = [
        ("num_detections", TensorProto.INT32, [1]),
        ("boxes", TensorProto.FLOAT, [1, DETECTIONS, 4]),
        ("scores", TensorProto.FLOAT, [1, DETECTIONS]),
        ("labels", TensorProto.INT32, [1, DETECTIONS]),
    ]
    if masks:
        nodes += [
            helper.make_node("Gather", ["grids", "order"], ["grids5"], axis=1),
            helper.make_node("Squeeze", ["grids5", "zero"], ["masks"]),
        ]
        outputs.append(("masks", TensorProto.FLOAT, [1, DETECTIONS, 28, 28]))
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def write_dense_retinanet(path: Path, size: int = 64) -> Path:
    """Write the dense part of a RetinaNet with its manifest; its logits rise with the brightness of the image."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from emca_deploy.artifacts import Manifest, write_manifest
    from emca_deploy.results.codec import to_json
    from emca_deploy.tasks.detector_config import RETINANET_LEVELS, default_config

    config = default_config("retinanet", CLASSES)
    anchors = len(config.anchor_ratios) * len(config.anchor_sizes[0])
    rng = np.random.default_rng(4)
    nodes = [helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0)]
    constants, outputs = {}, []
    for level, name in enumerate(RETINANET_LEVELS):
        places = anchors * (-(-size // (8 << level))) ** 2
        for kind, width in (("logits", CLASSES), ("deltas", 4)):
            output = f"{kind}_{name}"
            constants[f"{output}.values"] = rng.normal(-2, 1, (1, places, width)).astype(np.float32)
            nodes.append(helper.make_node("Add", [f"{output}.values", "mean"], [output]))
            outputs.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, places, width]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "dense", [images], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    write_manifest(path, Manifest("onnx", "", "fp32", details={"detector": {"config": to_json(config)}}))
    return path
