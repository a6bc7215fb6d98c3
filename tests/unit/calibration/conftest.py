"""Graphs of every family, exported once a session at a small size, and images without files."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from emca_deploy.artifacts import Preprocessing
from emca_deploy.export.exporter import ExportRequest, export_onnx
from emca_deploy.models.registry import create_model

SIZE = 64


class ArraySource:
    """Seeded images in memory, as `ImageSource` serves them."""

    labels = None
    preprocessing = Preprocessing.for_size(SIZE)

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def item_name(self, index):
        return f"image {index}"

    def identity(self):
        return "0" * 64

    def batches(self, batch_size, indices=None):
        order = list(range(len(self.images)) if indices is None else indices)
        for start in range(0, len(order), batch_size):
            yield self.images[order[start : start + batch_size]], None


@pytest.fixture
def images():
    return ArraySource(np.random.default_rng(0).standard_normal((12, 3, SIZE, SIZE)).astype(np.float32))


@pytest.fixture(scope="session")
def exported(once, tmp_path_factory):
    """Return a function that exports an architecture with lively batch norm statistics and returns the file."""
    folder = tmp_path_factory.mktemp("onnx")

    def export(name: str, **options) -> Path:
        path = folder / f"{name}-{'-'.join(map(str, options.values()))}.onnx"
        if not path.exists():  # a link in a folder of this process's own, since tables come to lie beside it
            path.hardlink_to(once(path.stem, lambda made: write_model(made / "model.onnx", name, **options)) / "model.onnx")
        return path

    return export


def write_model(path: Path, name: str, **options) -> None:
    torch.manual_seed(0)
    module = create_model(name, num_classes=10, **options).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    ir.save(export_onnx(module, ExportRequest(SIZE)), path)
