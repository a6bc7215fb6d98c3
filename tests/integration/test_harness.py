"""The harness with real runtimes: `profile` and `validate` on .onnx files."""

import json
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.artifacts import Manifest, Preprocessing, write_manifest
from emca_deploy.cli import run
from emca_deploy.harness.accuracy.collection import LogitsRun
from emca_deploy.targets.candidates import CandidateOptions, candidate, candidates
from emca_deploy.targets.named_artifacts import split_artifact

CLASSES, SIZE = 5, 8
QUICK = ["--duration", "0.3", "--max-duration", "0.3", "--warmup", "0.1", "--threads", "1", "--processes", "1"]
PLAIN = Preprocessing(SIZE, SIZE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def save_classifier(path: Path, *, quantized: bool = False, scale: float = 0.05, batch: str | int = "batch") -> Path:
    """Write an ONNX classifier: global average pooling, then MatMul, optionally with Q/DQ at the input."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    head = np.random.default_rng(0).standard_normal((3, CLASSES)).astype(np.float32)
    weights = [numpy_helper.from_array(head, "head")]
    nodes, source = [], "images"
    if quantized:
        weights += [numpy_helper.from_array(np.float32(scale), "scale"), numpy_helper.from_array(np.uint8(0), "zero")]
        nodes = [
            helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        ]
        source = "dq"
    nodes += [
        helper.make_node("GlobalAveragePool", [source], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])]
    graph = helper.make_graph(nodes, "classifier", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.fixture
def models(tmp_path):
    return save_classifier(tmp_path / "model.onnx"), save_classifier(tmp_path / "model.int8.onnx", quantized=True)


@pytest.fixture
def data(tmp_path):
    """Images labelled with the class that the model predicts in float32."""
    import onnx
    from onnx import numpy_helper

    images = np.random.default_rng(1).random((23, 3, SIZE, SIZE)).astype(np.float32)
    head = numpy_helper.to_array(onnx.load(str(save_classifier(tmp_path / "x.onnx"))).graph.initializer[0])
    labels = (images.mean(axis=(2, 3)) @ head).argmax(axis=1)
    np.savez(tmp_path / "val.npz", images=images, labels=labels)
    return tmp_path / "val.npz"


@pytest.mark.usefixtures("in_threads")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_validate_a_plain_onnx_file_and_what_quantization_costs(models, data, backend, capsys):
    pytest.importorskip(backend)
    plain, quantized = models
    arguments = ["validate", str(quantized), "--data", str(data), "--backend", backend, "--reference", str(plain)]
    assert run([*arguments, "--json", "--threads", "1", "--batch", "4"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["samples"] == 23
    assert document["reference"]["top1"] == 100.0
    assert 20 < document["reference"]["sqnr_db"] < 80
    assert document["top1"] == pytest.approx(document["reference"]["agreement"])


def test_profile_compares_one_file_on_two_backends(models, capsys):
    pytest.importorskip("openvino")
    plain, quantized = models
    artifacts = [f"onnxruntime={plain}", f"openvino={plain}", str(quantized)]
    assert run(["profile", *artifacts, "--json", *QUICK]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [result["backend"] for result in document["results"]] == ["onnxruntime", "openvino", "onnxruntime"]
    assert [result["precision"] for result in document["results"]] == ["fp32", "fp32", "int8"]
    assert [comparison["a"] for comparison in document["comparisons"]] == [artifacts[1], artifacts[2]]
    assert {comparison["b"] for comparison in document["comparisons"]} == {artifacts[0]}
    assert all(result["runtime"] for result in document["results"])


@pytest.mark.usefixtures("in_threads")
def test_fixed_batch_is_said_with_its_remedy_and_works_with_it(tmp_path, data, capsys):
    model = save_classifier(tmp_path / "fixed.onnx", batch=4)
    assert run(["profile", str(model), *QUICK]) == 2
    assert "4" in capsys.readouterr().err
    assert run(["profile", str(model), "--batch", "4", *QUICK]) == 0
    capsys.readouterr()
    found = LogitsRun(candidate(str(model), None, CandidateOptions(threads=1)), data, PLAIN).collect()
    assert found.logits.shape == (23, CLASSES)
    np.testing.assert_array_equal(found.logits.argmax(axis=1), found.labels)


@pytest.mark.usefixtures("in_threads")
def test_manifest_gives_precision_and_preprocessing(models, data, capsys):
    plain, _ = models
    write_manifest(plain, Manifest("onnx", "", "fp16", preprocessing=PLAIN))
    assert candidate(str(plain), None, CandidateOptions()).precision == "fp16"
    assert run(["validate", str(plain), "--data", str(data), "--json", "--threads", "1"]) == 0
    assert "assumed" not in capsys.readouterr().err


@pytest.mark.usefixtures("in_threads")
def test_file_changed_since_its_manifest_is_refused(models, capsys):
    plain, quantized = models
    write_manifest(plain, Manifest("onnx", "", "fp32"))
    plain.write_bytes(quantized.read_bytes())
    assert run(["profile", str(plain), *QUICK]) == 2
    assert "is not the file its manifest describes" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08\x12"])
def test_damaged_model_is_two_lines(tmp_path, content, capfd):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    assert run(["profile", str(path), *QUICK]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 2
    assert "bad.onnx" in err


def test_names_of_candidates(models, monkeypatch):
    plain, quantized = map(str, models)
    options = CandidateOptions(threads=1)
    assert [spec.name for spec in candidates([plain, quantized], [], options)] == [plain, quantized]
    both = candidates([plain], ["onnxruntime", "openvino"], options)
    assert [spec.name for spec in both] == [f"onnxruntime={plain}", f"openvino={plain}"]
    assert {spec.kwargs["spin"] for spec in both} == {False}
    assert candidates([plain], [], options)[0].kwargs["spin"] is True
    twice = candidates([plain, plain, plain], [], options)
    assert len({spec.name for spec in twice}) == 3
    monkeypatch.chdir(models[0].parent)
    odd = Path("openvino=model.onnx")
    odd.write_bytes(models[0].read_bytes())
    assert split_artifact(str(odd)) == (None, str(odd))
    odd.unlink()
    assert split_artifact(str(odd)) == ("openvino", "model.onnx")
