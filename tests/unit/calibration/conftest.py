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
