"""ONNX files of other exporters on the command line: fully calibrated, and as close to their float file as the plain form."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.cli import run

pytestmark = pytest.mark.usefixtures("in_threads")
FAST = ["--method", "minmax", "--recover", "none", "--threads", "1", "--backend", "onnxruntime"]
LEAST_DB = 25.0
"""The plain form reaches 36 dB on these images, with random weights and the ranges of 12 images."""


def network(
    path, *, channels=3, size=(24, 16), kind=TensorProto.FLOAT, layout="NCHW", head="flat", extra=(), dynamic=False, **kw
):
    """Write three convolutions with a residual Add and a linear layer; the input and output in a foreign form."""
    rng = np.random.default_rng(5)
    inits = {
        "w1": rng.standard_normal((8, channels, 3, 3)) / 4,
        "w2": rng.standard_normal((8, 8, 3, 3)) / 8,
        "w3": rng.standard_normal((8, 8, 3, 3)) / 8,
        "fc": rng.standard_normal((4, 8)),
        "fc4": rng.standard_normal((4, 8, 1, 1)),
    }
    nodes, x = [], "images"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [x], ["nchw"], perm=[0, 3, 1, 2]))
        x = "nchw"
    if kind != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [x], ["floats"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Div", ["floats", "range"], ["scaled"]))
        inits["range"], x = np.array(128.0), "scaled"
    pads = {"pads": [1, 1, 1, 1]}
    nodes += [
        helper.make_node("Conv", [x, "w1"], ["a"], **pads),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], **pads),
        helper.make_node("Add", ["c", "b"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Conv", ["e", "w3"], ["f"], strides=[2, 2], **pads),
        helper.make_node("Relu", ["f"], ["g"]),
        helper.make_node("GlobalAveragePool", ["g"], ["p"]),
    ]
    if head == "four":
        nodes.append(helper.make_node("Conv", ["p", "fc4"], ["logits"]))
    else:
        nodes += [helper.make_node("Flatten", ["p"], ["h"]), helper.make_node("Gemm", ["h", "fc"], ["logits"], transB=1)]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4] if head == "flat" else ["N", 4, 1, 1])]
    if head == "several":
        nodes.append(helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
        outputs = [
            helper.make_tensor_value_info("best", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 4]),
        ]
    sides = ["H", "W"] if dynamic else list(size)
    shape = ["N", *sides, channels] if layout == "NHWC" else ["N", channels, *sides]
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(np.asarray(a, np.float32), name) for name, a in inits.items() if name in used]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("images", kind, shape)], outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path, **kw)
    return path


def pictures(folder, channels=3):
    """Write twelve smooth pictures of 30x20, three a class."""
    from PIL import Image

    rng = np.random.default_rng(1)
    for index in range(12):
        place = folder / f"c{index % 4}"
        place.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 255, (5, 5, 3), np.uint8)).resize((20, 30), Image.Resampling.BICUBIC)
        (small if channels == 3 else small.convert("L")).save(place / f"{index}.png")
    return folder


def quantize(model, data, output, capsys, *more):
    """Calibrate and validate, and return both JSON documents."""
    capsys.readouterr()
    found = []
    for words in (
        ["calibrate", model, "--data", data, "-o", output, *FAST, *more],
        ["validate", output, "--data", data, "--reference", model, "--threads", "1", *more],
    ):
        code = run([str(word) for word in (*words, "--json")])
        out, err = capsys.readouterr()
        assert code == 0, err
        found.append(json.loads(out))
    return found


FORMS = {
    "plain": {},
    "channels last": {"layout": "NHWC"},
    "uint8": {"kind": TensorProto.UINT8},
    "uint8, channels last": {"kind": TensorProto.UINT8, "layout": "NHWC"},
    "four dimensions": {"head": "four"},
    "several outputs": {"head": "several"},
    "one channel": {"channels": 1},
    "dynamic size": {"dynamic": True},
    "weights beside": {"save_as_external_data": True, "location": "m.bin", "size_threshold": 16},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_foreign_form_is_quantized_whole(tmp_path, capsys, form):
    facts = FORMS[form]
    (tmp_path / "out").mkdir()
    model = network(tmp_path / "m.onnx", **facts)
    data = pictures(tmp_path / "data", facts.get("channels", 3))
    size = ["--image-size", "24x16"] if form == "dynamic size" else []
    calibrated, validated = quantize(model, data, tmp_path / "out" / "q.onnx", capsys, *size)
    coverage = calibrated["coverage"]
    # ONNX Runtime's INT8 convolution rounds its output; a convolution that computes the logits therefore stays in float.
    in_float = ["Conv"] if form == "four dimensions" else []
    assert (coverage["layers"], [layer["op"] for layer in coverage["float_layers"]]) == (4, in_float)
    assert coverage["int8_macs_percent"] > 99.9
    assert validated["reference"]["sqnr_db"] > LEAST_DB
    written = onnx.load(tmp_path / "out" / "q.onnx", load_external_data=False)
    assert not any(tensor.external_data for tensor in written.graph.initializer)
    original = onnx.load(model, load_external_data=False).graph
    assert [value.name for value in written.graph.output] == [value.name for value in original.output]
    assert written.graph.input[0].type.tensor_type.elem_type == original.input[0].type.tensor_type.elem_type


def test_a_changed_sidecar_is_measured_anew(tmp_path, capsys):
    """The .onnx file does not change; only the external weights come from another training."""
    sidecar = {"save_as_external_data": True, "location": "m.bin", "size_threshold": 16}
    model = network(tmp_path / "m.onnx", **sidecar)
    data = pictures(tmp_path / "data")
    first, _ = quantize(model, data, tmp_path / "a.onnx", capsys)
    again, _ = quantize(model, data, tmp_path / "b.onnx", capsys)
    weights = np.frombuffer((tmp_path / "m.bin").read_bytes(), np.float32) * np.float32(3)
    (tmp_path / "m.bin").write_bytes(weights.tobytes())
    changed, validated = quantize(model, data, tmp_path / "c.onnx", capsys)
    assert [first["table_reused"], again["table_reused"], changed["table_reused"]] == [False, True, False]
    assert validated["reference"]["sqnr_db"] > LEAST_DB


def test_a_dynamic_size_names_the_option_that_helps(tmp_path, refused):
    model, data = network(tmp_path / "m.onnx", dynamic=True), pictures(tmp_path / "data")
    for command in (
        ["calibrate", model, "--data", data, "-o", tmp_path / "q.onnx", *FAST],
        ["validate", model, "--data", data],
        ["profile", model, "--duration", "0.1", "--max-duration", "0.1", "--warmup", "0", "--no-telemetry"],
    ):
        assert "--image-size" in refused(*command).splitlines()[1]
        if command[0] != "profile":
            assert run([str(word) for word in (*command, "--image-size", "24x16", "--json")]) == 0


@pytest.mark.parametrize("change", ["ir_version", "opset"])
def test_a_file_newer_than_the_runtime_says_what_it_takes(tmp_path, refused, change):
    model = onnx.load(network(tmp_path / "m.onnx"))
    if change == "ir_version":
        model.ir_version = 99
    else:
        model.opset_import[0].version = 99
    onnx.save(model, tmp_path / "new.onnx")
    problem, remedy = refused("validate", tmp_path / "new.onnx", "--data", pictures(tmp_path / "data")).splitlines()
    assert "new.onnx" in problem
    assert any(character.isdigit() for character in problem.replace("99", ""))  # the version that the runtime accepts
    assert "update" in remedy


def test_links_of_a_cache_are_followed(tmp_path, capsys):
    for folder in ("blobs", "snapshot"):
        (tmp_path / folder).mkdir()
    network(tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=16)
    for name, blob in (("m.onnx", "aa"), ("m.onnx.data", "bb")):
        (tmp_path / name).rename(tmp_path / "blobs" / blob)
        (tmp_path / "snapshot" / name).symlink_to(Path("..") / "blobs" / blob)
    _, validated = quantize(tmp_path / "snapshot" / "m.onnx", pictures(tmp_path / "data"), tmp_path / "q.onnx", capsys)
    assert validated["reference"]["sqnr_db"] > LEAST_DB
