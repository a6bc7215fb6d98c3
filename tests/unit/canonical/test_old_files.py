"""Files of old opsets, whose operators have axes and bounds as attributes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.canonical.canonicalize import canonical_model
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.file import OnnxFile


def scaled(folder: Path, axes_as: str, opset: int) -> Path:
    """A convolution, then a factor per channel reshaped to (C, 1, 1), as in Caffe2's DenseNet."""
    rng = np.random.default_rng(0)
    weights = {"weight": rng.standard_normal((8, 3, 3, 3)), "factor": rng.uniform(0.5, 2, 8), "head": rng.standard_normal((8, 5))}
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    attributes = {"axes": [1, 2]} if axes_as == "attribute" else {}
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("Unsqueeze", ["factor", *([] if attributes else ["axes"])], ["wide"], **attributes),
        helper.make_node("Mul", ["map", "wide"], ["scaled"]),
        helper.make_node("GlobalAveragePool", ["scaled"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    stored = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    stored += [] if attributes else [numpy_helper.from_array(np.array([1, 2]), "axes")]
    graph = helper.make_graph(
        nodes,
        "scaled",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 5])],
        stored,
    )
    path = folder / f"{opset}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("axes_as", "opset"), [("attribute", 8), ("attribute", 9), ("attribute", 12), ("input", 13), ("input", 18)]
)
def test_axes_are_taken_in_the_form_of_their_opset(tmp_path, monkeypatch, axes_as, opset):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    canonical = canonical_model(OnnxFile.open(scaled(tmp_path, axes_as, opset)))
    assert not canonical.warnings
    assert [node.op_type for node in canonical.model.graph] == ["Conv", "GlobalAveragePool", "Flatten", "Gemm"]


def test_a_node_that_lacks_an_input_of_its_opset_is_refused(tmp_path):
    with pytest.raises(ModelError):
        OnnxFile.open(scaled(tmp_path, "attribute", 13))
