"""Models small enough to build in every test."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

CLASSES, SIZE = 10, 8


def save_classifier(path: Path, batch: str | int = "batch", size: int = SIZE, classes: int = CLASSES, seed: int = 0) -> Path:
    """Write an ONNX classifier: Conv, ReLU, global average pooling, MatMul."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    conv = numpy_helper.from_array((random.standard_normal((16, 3, 3, 3)) * 0.3).astype(np.float32), "conv")
    head = numpy_helper.from_array(random.standard_normal((16, classes)).astype(np.float32), "head")
    nodes = [
        helper.make_node("Conv", ["images", "conv"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "head"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, size, size])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes])]
    graph = helper.make_graph(nodes, "classifier", inputs, outputs, [conv, head])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("models") / "classifier.onnx")


@pytest.fixture(autouse=True, scope="module")
def small(small_networks: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    with small_networks():
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, small: None) -> Path:
    torch = pytest.importorskip("torch")
    from emca_deploy.networks.registry import create_model

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoints") / "resnet10.pth"
    torch.save(create_model("emca_eca_resnet10", CLASSES).state_dict(), path)
    return path
