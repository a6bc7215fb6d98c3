"""A minimal classifier whose logits are the means of the channels."""

from collections.abc import Callable
from pathlib import Path

import pytest

CLASSIFIER = (
    "(float[batch,3,8,8] images) => (float[batch,3] logits) { means = GlobalAveragePool(images) logits = Flatten(means) }"
)


def write_onnx(path: Path, graph: str) -> Path:
    """Write the ONNX file of a graph in ONNX's own text form, "INPUTS => (OUTPUTS) { NODES }"."""
    import onnx.parser

    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\nclassifier {graph}')
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def make_onnx(tmp_path: Path) -> Callable[..., Path]:
    def make(graph: str = CLASSIFIER, name: str = "model.onnx") -> Path:
        return write_onnx(tmp_path / name, graph)

    return make
