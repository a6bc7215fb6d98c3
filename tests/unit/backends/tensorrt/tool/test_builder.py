"""`build --trtexec`: TensorRT's own tool builds an engine with a manifest."""

import json

import numpy as np
import pytest
from detector_graphs import write_dense_retinanet, write_detector
from onnx import TensorProto, helper, numpy_helper, save

from emca_deploy.artifacts import read_manifest
from emca_deploy.cli import run


@pytest.fixture
def model(tmp_path):
    """A network whose nodes have the names in the stand-in's log."""
    names = ["stem.conv", "stage1.block0.conv2", "stage1.block0.attention.pool", "stage1.block0.attention.excitation.conv"]
    weight = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")
    kinds = ["Conv", "Conv", "GlobalAveragePool", "Conv"]
    nodes, value = [], "images"
    for name, kind in zip(names, kinds, strict=True):
        nodes.append(helper.make_node(kind, [value, "w"] if kind == "Conv" else [value], [name], name=name))
        value = name
    nodes.append(helper.make_node("Flatten", [value], ["logits"], name="flat"))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "g", [images], [logits], [weight])
    path = tmp_path / "model.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def built(model, one, capsys, *more):
    engine = model.with_suffix(".engine")
    arguments = ["build", str(model), "--backend", "tensorrt", "--trtexec", str(one.path), "-o", str(engine), "--json", *more]
    code = run(arguments)
    out, err = capsys.readouterr()
    return code, (json.loads(out) if code == 0 else err), engine


@pytest.mark.parametrize("version", ["8205", "8601", "100300", "110100"])
def test_an_engine_with_its_manifest(stand_in, model, capsys, version) -> None:
    code, document, engine = built(model, stand_in(version), capsys, "--batches", "1,4,8")
    assert code == 0
    manifest = read_manifest(engine)
    assert manifest is not None
    assert engine.read_bytes() == b"an engine of " + version.encode()
    assert document["tensorrt"]["batches"] == [1, 4, 8]
    assert document["tensorrt"]["convolutions"] == 3
    assert manifest.versions == {"tensorrt": document["tensorrt"]["version"]}


def test_a_dla_with_a_cache_tells_what_fell_back(stand_in, model, tmp_path, capsys) -> None:
    cache = tmp_path / "model.cache"
    cache.write_text("TRT-8601-EntropyCalibration2\nimages: 3c010a14\n")
    one = stand_in("8601")
    code, document, _ = built(model, one, capsys, "--dla-core", "0", "--calibration-cache", str(cache), "--batch", "1")
    assert code == 0
    dla = document["dla"]
    assert dla["gpu_nodes"] == ["stage1.block0.attention.pool", "stage1.block0.attention.excitation.conv"]
    assert dla["refused"] == {"stage1.block0.attention.pool": "Unsupported on DLA"}
    work = [3 * 8 * 8 * 3, 3 * 8 * 8 * 3, 3 * 3]
    assert dla["macs_on_dla_percent"] == pytest.approx(100 * sum(work[:2]) / sum(work))
    assert {"--int8", "--fp16", f"--calib={cache}", "--precisionConstraints=prefer", "--shapes=images:1x3x8x8"} <= set(
        one.calls[-1]
    )


def test_what_does_not_go_is_refused(stand_in, model, tmp_path, capsys) -> None:
    one = stand_in("100300")
    cache = tmp_path / "other.cache"
    cache.write_text("TRT-8601-EntropyCalibration2\nimages: 3c010a14\n")
    for more, code, words in (
        (["--calibration-cache", str(cache)], 2, "TensorRT 8.6.1"),
        (["--version-compatible"], 2, "--version-compatible"),
        (["--optimization-level", "9"], 2, "9"),
    ):
        found, error, engine = built(model, one, capsys, *more)
        assert (found, engine.exists()) == (code, False)
        assert words in error
        assert error.count("\n") == 2
    assert run(["build", str(model), "--backend", "openvino", "--trtexec", "auto", "-o", str(tmp_path / "x")]) == 2
    assert run(["build", str(model), "--backend", "tensorrt", "--trtexec", str(tmp_path / "no"), "-o", str(tmp_path / "x")]) == 3


@pytest.mark.parametrize("write", [write_detector, write_dense_retinanet])
def test_detectors_are_built_like_classifiers(stand_in, tmp_path, capsys, write) -> None:
    model = write(tmp_path / "detector.onnx")
    code, document, engine = built(model, stand_in("100300"), capsys)
    assert code == 0
    assert document["tensorrt"]["input"]["shape"] == [1, 3, 64, 64]
    dense = write is write_dense_retinanet
    assert ("detector" in read_manifest(engine).details) is dense
