"""The facts of an ONNX file, read in one place."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.artifacts import sha256_file
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.file import OnnxFile


def save(
    path: Path, *, sidecar: str | None = None, seed: int = 0, steps=(), shape=("N", 3, 8, 8), kind=TensorProto.FLOAT
) -> Path:
    """Write a classifier of one convolution; `steps` are (operator, constant) at its input."""
    rng = np.random.default_rng(seed)
    inits = [numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w")]
    nodes, x = [], "images"
    if kind != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [x], ["cast"], to=TensorProto.FLOAT))
        x = "cast"
    for index, (op, value) in enumerate(steps):
        inits.append(numpy_helper.from_array(np.asarray(value, np.float32).reshape(-1, 1, 1), f"k{index}"))
        nodes.append(helper.make_node(op, [x, f"k{index}"], [f"s{index}"]))
        x = f"s{index}"
    nodes += [helper.make_node("Conv", [x, "w"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["p"])]
    nodes.append(helper.make_node("Flatten", ["p"], ["logits"]))
    ends = [helper.make_tensor_value_info("images", kind, list(shape))], [helper.make_tensor_value_info("logits", 1, ["N", 4])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *ends, inits), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    if sidecar is None:
        onnx.save(model, path)
    else:
        onnx.save(model, path, save_as_external_data=True, location=sidecar, size_threshold=16)
    return path


def weight(path: Path):
    return OnnxFile.open(path).load().graph.initializers["w"].const_value.numpy()


def test_weights_in_a_sidecar_are_read_from_any_folder(tmp_path, monkeypatch):
    wanted = weight(save(tmp_path / "plain.onnx"))
    path = save(tmp_path / "m.onnx", sidecar="m.bin")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(weight(path), wanted)


def test_weights_behind_links_are_read(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    wanted = weight(save(tmp_path / "m.onnx", sidecar="m.onnx.data"))
    for name, blob in (("m.onnx", "aa"), ("m.onnx.data", "bb")):
        (tmp_path / name).rename(tmp_path / "blobs" / blob)
        (tmp_path / "snapshot" / name).symlink_to(f"../blobs/{blob}")
    path = tmp_path / "snapshot" / "m.onnx"
    assert OnnxFile.open(path).linked
    np.testing.assert_array_equal(weight(path), wanted)


def test_the_digest_covers_the_sidecar(tmp_path):
    plain = save(tmp_path / "plain.onnx")
    assert OnnxFile.open(plain).sha256 == sha256_file(plain)
    path = save(tmp_path / "m.onnx", sidecar="m.bin")
    before = OnnxFile.open(path).sha256
    other = bytearray((tmp_path / "m.bin").read_bytes())
    other[0] ^= 1
    (tmp_path / "m.bin").write_bytes(other)
    os.utime(tmp_path / "m.bin", ns=(1, 1))
    assert OnnxFile.open(path).sha256 != before


@pytest.mark.parametrize("damage", ["missing", "short", "outside"])
def test_a_sidecar_that_cannot_be_used_is_named(tmp_path, damage):
    path = save(tmp_path / "m.onnx", sidecar="m.bin")
    if damage == "missing":
        (tmp_path / "m.bin").unlink()
    elif damage == "short":
        os.truncate(tmp_path / "m.bin", 10)
    else:
        model = onnx.load(path, load_external_data=False)
        next(e for e in model.graph.initializer[0].external_data if e.key == "location").value = "../m.bin"
        path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"m\.bin") as error:
        OnnxFile.open(path)
    assert "Traceback" not in str(error.value)


def test_a_file_is_read_again_only_where_it_changed(tmp_path):
    path = save(tmp_path / "m.onnx")
    first = OnnxFile.open(path)
    assert OnnxFile.open(path) is first
    save(path, seed=1)
    os.utime(path, ns=(1, 1))
    assert OnnxFile.open(path) is not first


UNIT = [("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])]
BYTES = [("Sub", [123.675, 116.28, 103.53]), ("Div", [58.395, 57.12, 57.375])]
RANGES = {
    "none": ([], None),
    "mean and deviation of 0..1": (UNIT, 1.0),
    "mean and deviation of 0..255": (BYTES, 255.0),
    "division by 255, then mean and deviation": ([("Div", [255.0]), *UNIT], 255.0),
    "to -1..1": ([("Mul", [2.0]), ("Sub", [1.0])], 1.0),
    "bytes to -1..1": ([("Sub", [127.5]), ("Mul", [1 / 127.5])], 255.0),
    "Caffe's mean": ([("Add", [-104.0, -117.0, -123.0])], 255.0),
}


@pytest.mark.parametrize("form", RANGES)
def test_normalisation_in_the_graph(tmp_path, form):
    steps, expected = RANGES[form]
    assert OnnxFile.open(save(tmp_path / "m.onnx", steps=steps)).pixel_range == expected


def test_uint8_takes_pixels_as_they_are(tmp_path):
    file = OnnxFile.open(save(tmp_path / "m.onnx", steps=UNIT, kind=TensorProto.UINT8))
    assert (file.image.dtype, file.pixel_range) == ("uint8", 255.0)


def test_the_image_input(tmp_path):
    image = OnnxFile.open(save(tmp_path / "m.onnx", shape=("N", 3, 48, 192))).image
    assert (image.layout, image.batch, image.channels, image.height, image.width) == ("NCHW", None, 3, 48, 192)
    image = OnnxFile.open(save(tmp_path / "d.onnx", shape=(4, 3, "H", "W"))).image
    assert (image.batch, image.height, image.width) == (4, None, None)
