"""Images in memory with the input size of the networks from `exported`."""

import sys
from pathlib import Path

import numpy as np
import pytest

from emca_deploy.artifacts import Preprocessing

sys.path.append(str(Path(__file__).parent))  # for random_networks
SIZE = 64


class ArraySource:
    """Seeded images in memory, in the form of an `ImageSource`."""

    labels = None
    finished = True
    preprocessing = Preprocessing.for_size(SIZE)

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def item_name(self, index):
        return f"image {index}"

    def load(self, index):
        return self.images[index]

    def size(self, index):
        return self.images[index].nbytes

    def content(self, index):
        return self.images[index].tobytes()

    def identity(self):
        return "0" * 64

    def batches(self, batch_size, indices=None):
        order = list(range(len(self.images)) if indices is None else indices)
        for start in range(0, len(order), batch_size):
            yield self.images[order[start : start + batch_size]], None


@pytest.fixture(scope="session")
def some_images():
    """Return a function that makes some seeded images."""
    return lambda count, seed=0: ArraySource(
        np.random.default_rng(seed).standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)
    )


@pytest.fixture
def images(some_images):
    return some_images(12)


CLASSIFIER = """<ir_version: 9, opset_import: ["" : 20]>
    small (float[n,3,8,8] images) => (float[n,5] logits) {
        convolved = Conv <pads = [1,1,1,1]> (images, w, b)
        passed = Relu (convolved)
        pooled = GlobalAveragePool (passed)
        flat = Flatten (pooled)
        logits = Gemm <transB = 1> (flat, h, c)
    }"""


@pytest.fixture
def small(tmp_path):
    """Return the file of a network with a convolution, a ReLU, a pooling and a linear layer."""
    import onnx
    import onnx.parser

    rng = np.random.default_rng(0)
    made = onnx.parser.parse_model(CLASSIFIER)
    weights = {"w": (4, 3, 3, 3), "b": (4,), "h": (5, 4), "c": (5,)}
    made.graph.initializer.extend(
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in weights.items()
    )
    for node in made.graph.node:
        node.name = node.output[0]
    onnx.save(onnx.shape_inference.infer_shapes(made), tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


@pytest.fixture
def pictures():
    """Return a function that makes a number of small images."""
    return lambda count: ArraySource(np.random.default_rng(1).uniform(0, 1, (count, 3, 8, 8)).astype(np.float32))
