"""Small artifacts with manifests."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emca_deploy.artifacts import Manifest, write_manifest
from emca_deploy.preprocessing import Preprocessing


def write_model(path: Path, weight: float = 1.0, *, external: bool = False) -> None:
    """Write a network of one product: (batch, 4) to (batch, 2)."""
    weights = numpy_helper.from_array(np.full((4, 2), weight, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options: dict[str, Any] = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0} if external else {}
    onnx.save_model(model, path, **options)


@pytest.fixture
def artifact(tmp_path):
    """Return a function that writes an ONNX model with a manifest and returns its path."""

    def make(name: str = "model.onnx", weight: float = 1.0, *, external: bool = False, **facts: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write_model(path, weight, external=external)
        values: dict[str, Any] = {
            "kind": "onnx",
            "precision": "fp32",
            "num_classes": 2,
            "preprocessing": Preprocessing(image_size=2),
        }
        write_manifest(path, Manifest(**{**values, "sha256": "", "versions": {"onnx_ir": "1.1.0"}, **facts}))
        return path

    return make
