"""Probabilities and class names are added to a finished file, and commands still find its logits."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.artifacts import read_manifest
from emca_deploy.errors import InputError
from emca_deploy.exporting.model_output import CLASSES_KEY, complete_output
from emca_deploy.onnx_file.file import OnnxFile

NAMES = {"zebra": 0, "ant": 2, "Ä": 1, "horse": 0}


@pytest.fixture
def model(tmp_path):
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((3, 3, 4, 4)).astype(np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "w"], ["map"], name="conv"),
            helper.make_node("Flatten", ["map"], ["logits"], name="flatten"),
        ],
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def run(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).standard_normal((2, 3, 4, 4)).astype(np.float32)
    return session.run(None, {"images": images})[0], session.get_modelmeta().custom_metadata_map


def test_probabilities_and_names(model, tmp_path):
    made = complete_output(model, tmp_path / "made.onnx", softmax=True, names=NAMES)
    logits, before = run(model)
    probabilities, metadata = run(made.onnx)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(probabilities, powers / powers.sum(1, keepdims=True), rtol=1e-5)
    assert (json.loads(metadata[CLASSES_KEY]), before) == (["zebra", "Ä", "ant"], {})
    found = OnnxFile.open(made.onnx).find_logits()
    assert (found.softmax, found.tensor, found.classes) == (True, "logits", 3)
    assert read_manifest(made.onnx).details["output"] == {"softmax": True, "classes": 3}
    with pytest.raises(InputError):
        complete_output(made.onnx, tmp_path / "again.onnx", softmax=True, names=None)


@pytest.mark.parametrize("names", [{"a": 0, "b": 1}, {"a": 0, "b": 1, "c": 2, "d": 3}, {"a": 0, "b": 2, "c": 3}])
def test_names_fit_the_outputs(names, model, tmp_path):
    with pytest.raises(InputError):
        complete_output(model, tmp_path / "made.onnx", softmax=False, names=names)
    assert not (tmp_path / "made.onnx").exists()
