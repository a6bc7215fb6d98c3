"""The networks to quantize: trained ones with labelled images for accuracy, and full-size ones for latency."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emca_deploy.artifacts import Preprocessing, sha256_file
from emca_deploy.data.bundled import (
    BUNDLED_ARCH,
    BUNDLED_PREPROCESSING,
    bundled_calibration_images,
    bundled_checkpoint,
    bundled_test_images,
)
from emca_deploy.errors import InputError, UnknownNameError
from emca_deploy.exporting.checkpoint import ExportOptions, export_checkpoint
from emca_deploy.networks.registry import create_model, find_architecture

__all__ = ["FASHION_MNIST", "Subject", "TestImages", "calibration_images", "random_subject", "test_images", "trained_subjects"]

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Folder where Debian's package installs the data set."""

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True)
class Subject:
    """A network to quantize.

    Attributes:
        name: Name in the tables.
        checkpoint: File with its weights.
        preprocessing: Preprocessing of its images.
        batch: Batch size of the export; None for a dynamic one.
    """

    name: str
    checkpoint: Path
    preprocessing: Preprocessing
    batch: int | None = None

    def identity(self) -> dict[str, str | int]:
        """Return what distinguishes it from others of its name."""
        return {"checkpoint": sha256_file(self.checkpoint), "image_size": self.preprocessing.image_size}

    def export(self, folder: Path) -> Path:
        """Export the network into a folder and return the ONNX file."""
        path = folder / f"{self.name.replace(' ', '-')}.onnx"
        options = ExportOptions(preprocessing=self.preprocessing, batch=self.batch)
        return export_checkpoint(self.checkpoint, path, options).onnx


@dataclass(frozen=True)
class TestImages:
    """Labelled images that no calibration uses."""

    path: Path
    what: str


def calibration_images() -> Path:
    """Return the bundled calibration images."""
    return bundled_calibration_images()


def test_images(data: Path, folder: Path) -> TestImages:
    """Return Fashion-MNIST's 10,000 test images, as an .npz in `folder`; the bundled 2,000 where `data` lacks them."""
    if not (data / "t10k-images-idx3-ubyte.gz").is_file():
        return TestImages(bundled_test_images(), "the 2,000 bundled test images of Fashion-MNIST")
    sys.path.insert(1, str(EXAMPLES))
    from train_fashion_mnist import read_split

    images, labels = read_split(data, "t10k", None)
    path = folder / "t10k.npz"
    np.savez(path, images=np.repeat(images[..., None], 3, axis=3), labels=labels)
    return TestImages(path, f"the {len(labels):,} test images of Fashion-MNIST")


def trained_subjects(checkpoints: Path | None, image_size: int, archs: Sequence[str] | None) -> list[Subject]:
    """Return the bundled network and a folder's networks, whose files are named after their architecture.

    Args:
        checkpoints: Folder of checkpoints; None for the bundled network alone.
        image_size: Image size of the folder's networks, in pixels.
        archs: Architectures to return; None for all.

    Raises:
        InputError: The folder does not exist, or no network is left.
    """
    subjects = [Subject(f"{BUNDLED_ARCH} (bundled)", bundled_checkpoint(), BUNDLED_PREPROCESSING)]
    if checkpoints is not None:
        if not checkpoints.is_dir():
            raise InputError(f"{checkpoints}: no such folder", "make it: python benchmarks/train_families.py -o FOLDER")
        norm = BUNDLED_PREPROCESSING
        preprocessing = Preprocessing(image_size, image_size, norm.mean, norm.std)
        found = [path for path in sorted(checkpoints.glob("*.safetensors")) if _is_architecture(path.stem)]
        subjects += [Subject(path.stem, path, preprocessing) for path in found]
    chosen = [subject for subject in subjects if not archs or subject.name.split()[0] in archs]
    if not chosen:
        raise InputError(
            f"no trained network of {', '.join(archs or ())}", "leave --arch out, or name a folder with --checkpoints"
        )
    return chosen


def random_subject(arch: str, folder: Path) -> Subject:
    """Return an architecture at 224x224, batch 1, with seeded random weights: neither latency nor cost depends on them."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = folder / f"{arch}.safetensors"
    save_file(create_model(arch).state_dict(), path)
    return Subject(arch, path, Preprocessing(), batch=1)


def _is_architecture(name: str) -> bool:
    try:
        find_architecture(name)
    except UnknownNameError:
        return False
    return True
