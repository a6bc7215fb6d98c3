"""The coverage that `emca-deploy calibrate` reports."""

import json

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

from emca_deploy.artifacts import read_manifest
from emca_deploy.cli import run

HEAD = """<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,8,8] images) => (float[N,4] logits) {"""
NETWORKS = {
    "whole": "a = Conv<pads=[1,1,1,1]>(images, w) s = Sigmoid(a) b = Mul(a, s)",
    "self_product": "a = Conv<pads=[1,1,1,1]>(images, w) m = MatMul(a, a) n = MatMul(m, a) b = MatMul(n, a)",
    "no_layer": "a = Concat<axis=1>(images, images) b = Relu(a)",
}


@pytest.fixture
def calibrated(tmp_path, capsys):
    """Return a function that calibrates a network and returns the exit code, the JSON document and stderr."""
    images = tmp_path / "images.npz"
    np.savez(images, images=np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32))

    def calibrate(name, *more):
        body = NETWORKS[name]
        ending = "p = GlobalAveragePool(b) f = Flatten(p) logits = Gemm<transB=1>(f, v) }" if name != "no_layer" else (
            "p = GlobalAveragePool(b) f = Flatten(p) logits = Slice(f, zero, four, one) }"
        )  # fmt: skip
        model = onnx.parser.parse_model(HEAD + body + ending)
        for number, node in enumerate(model.graph.node):
            node.name = f"{node.op_type.lower()}{number}"
        rng = np.random.default_rng(1)
        for weight, shape in (("w", (8, 3, 3, 3)), ("v", (4, 8))):
            model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), weight))
        for number, value in (("zero", 0), ("four", 4), ("one", 1)):
            model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), number))
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        quick = ["--method", "minmax", "--recover", "none", "--threads", "1", "--json"]
        code = run(["calibrate", str(path), "--data", str(images), "-o", str(tmp_path / "int8.onnx"), *quick, *more])
        shown = capsys.readouterr()
        return code, json.loads(shown.out) if shown.out else None, shown.err

    return calibrate


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_network_all_in_int8_is_reported_so_and_its_manifest_says_it(calibrated, tmp_path, backend):
    code, document, shown = calibrated("whole", "--backend", backend)
    assert code == 0
    assert document["coverage"] == {"layers": 2, "int8_layers": 2, "int8_macs_percent": 100.0, "float_layers": []}
    assert document["warnings"] == []
    assert "warning" not in shown
    assert read_manifest(tmp_path / "int8.onnx").details["coverage"] == document["coverage"]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_what_is_in_the_way_is_named_and_warned_of(calibrated, backend):
    code, document, shown = calibrated("self_product", "--backend", backend)
    assert code == 0
    coverage = document["coverage"]
    conv, products, head = 64 * 8 * 27, 3 * 8 * 8 * 8 * 8, 32
    assert coverage["int8_macs_percent"] == round(100 * (conv + head) / (conv + products + head), 2)
    assert {layer["op"] for layer in coverage["float_layers"]} == {"MatMul"}
    assert (coverage["layers"], coverage["int8_layers"]) == (5, 2)
    (warning,) = document["warnings"]
    assert "matmul1" in warning
    assert warning in shown


def test_patterns_that_keep_layers_count_as_float(calibrated):
    code, document, _ = calibrated("whole", "--backend", "openvino", "--keep-float", "conv*")
    assert code == 0
    assert [layer["name"] for layer in document["coverage"]["float_layers"]] == ["conv0"]
    assert document["coverage"]["int8_macs_percent"] < 1
    assert len(document["warnings"]) == 1


def test_a_network_with_nothing_to_quantize_is_refused_and_nothing_is_written(calibrated, tmp_path):
    code, document, shown = calibrated("no_layer", "--backend", "openvino")
    assert (code, document) == (2, None)
    assert "no_layer.onnx" in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npz", "no_layer.onnx"]


def test_a_quantized_model_is_refused_and_layers_explains_it(calibrated, tmp_path, capsys):
    """OpenVINO's placement on ONNX Runtime: the convolution returns float, and ONNX Runtime has no INT8 kernel for that."""
    calibrated("whole", "--backend", "openvino")
    quantized = tmp_path / "int8.onnx"
    images = ["--data", str(tmp_path / "images.npz")]
    assert run(["calibrate", str(quantized), *images, "--backend", "onnxruntime", "-o", str(tmp_path / "again.onnx")]) == 2
    assert "conv0" in capsys.readouterr().err
    assert not (tmp_path / "again.onnx").exists()
    for backend, expected in (("openvino", (2, set())), ("onnxruntime", (1, {"float_result"}))):
        arguments = ["--backend", backend, "--calls", "2", "--threads", "1", "--no-roofline", "--json"]
        assert run(["layers", str(quantized), *arguments]) == 0
        (result,) = json.loads(capsys.readouterr().out)["results"]
        found = result["int8"]
        kinds = {finding["kind"] for finding in found["findings"]}
        assert (found["layers"], found["form"]) == (2, "qdq")
        assert (found["int8_layers"], kinds & expected[1]) == (expected[0], kinds)
        assert all(finding["nodes"] and finding["remedy"] for finding in found["findings"])


def test_layers_of_a_float_model_has_nothing_to_explain(calibrated, tmp_path, capsys):
    calibrated("whole", "--backend", "openvino")
    assert run(["layers", str(tmp_path / "whole.onnx"), "--calls", "2", "--threads", "1", "--no-roofline", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["int8"] is None
