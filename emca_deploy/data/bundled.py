"""The sample in the package: a small trained network, and images to calibrate and test it with."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile
from zlib import crc32

from emca_deploy.errors import InputError, MissingError
from emca_deploy.preprocessing import Preprocessing

__all__ = [
    "BUNDLED_ARCH",
    "BUNDLED_PREPROCESSING",
    "DETECTION_PREPROCESSING",
    "DetectionSample",
    "bundled_calibration_images",
    "bundled_checkpoint",
    "bundled_licence",
    "bundled_test_images",
    "detection_sample",
    "is_bundled_image",
]

BUNDLED_ARCH = "emca_eca_resnet18"
BUNDLED_PREPROCESSING = Preprocessing(64, 64, (0.286, 0.286, 0.286), (0.353, 0.353, 0.353))
DETECTION_PREPROCESSING = Preprocessing(96, 96, BUNDLED_PREPROCESSING.mean, BUNDLED_PREPROCESSING.std)
_FOLDER = Path(__file__).with_name("bundled")
_EXAMPLES = Path(__file__).parents[2] / "examples/data"
"""Folder of the sample for detection in a clone of the repository; the wheel does not have it."""


@dataclass(frozen=True)
class DetectionSample:
    """A trained detector, scenes to calibrate it with, and test scenes with annotations in COCO's format."""

    checkpoint: Path
    calibration: Path
    test: Path
    annotations: Path


def detection_sample(folder: Path | None = None) -> DetectionSample:
    """Return the sample for detection in a folder; None is that of this clone of the repository.

    Raises:
        InputError: the folder lacks a file.
    """
    place = _EXAMPLES if folder is None else folder
    names = (
        "mask_rcnn_emca_eca_resnet18_fpn.safetensors",
        "calibration_scenes.zip",
        "test_scenes.zip",
        "test_scenes.json",
    )
    for name in names:
        if not (place / name).is_file():
            remedy = (
                "name the folder examples/data of a clone of emca-deploy with --data; its README.md says how to make the files"
            )
            raise InputError(f"{place / name}: this file of the sample detector is missing", remedy)
    return DetectionSample(*(place / name for name in names))


def bundled_checkpoint() -> Path:
    """Return the trained network: `BUNDLED_ARCH`, ten classes, 64x64.

    Raises:
        MissingError: this installation lacks the file.
    """
    return _bundled("emca_eca_resnet18_fashion_mnist.safetensors")


def bundled_test_images() -> Path:
    """Return a zip of 2,000 of Fashion-MNIST's test images, 200 per class; raises as `bundled_checkpoint`."""
    return _bundled("fashion_mnist_test.zip")


def bundled_calibration_images() -> Path:
    """Return a zip of 512 of Fashion-MNIST's training images, 51 or 52 per class; raises as `bundled_checkpoint`."""
    return _bundled("fashion_mnist_calibration.zip")


def bundled_licence() -> Path:
    """Return the licence of the images in both zips; raises as `bundled_checkpoint`."""
    return _bundled("LICENSE-fashion-mnist.txt")


def is_bundled_image(path: Path) -> bool:
    """Return whether a file is one of the images in both zips; raises as `bundled_checkpoint`."""
    content = path.read_bytes()
    size, crc = len(content), crc32(content)
    for place in (bundled_test_images(), bundled_calibration_images()):
        with ZipFile(place) as archive:
            if any((each.file_size, each.CRC) == (size, crc) for each in archive.infolist()):
                return True
    return False


def _bundled(name: str) -> Path:
    path = _FOLDER / name
    if not path.is_file():
        raise MissingError(f"{path}: the bundled file is missing", "install emca-deploy again, from a wheel or a full checkout")
    return path
