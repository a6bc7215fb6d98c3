"""Make the bundled image samples from Fashion-MNIST's idx files (Debian: `apt-get install dataset-fashion-mnist`).

    python scripts/make_bundled_sample.py [--data FOLDER] [--output FOLDER]

The zips are identical byte for byte as long as Pillow's PNG encoder does not change.
"""

import argparse
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from emca_deploy.artifacts import atomic_write
from emca_deploy.data.sources import choose_indices

__all__ = ["main"]

BUNDLED = Path(__file__).resolve().parents[1] / "emca_deploy" / "data" / "bundled"
LICENSE_NAME = "LICENSE-fashion-mnist.txt"
CLASSES = (
    "0_t-shirt_top", "1_trouser", "2_pullover", "3_dress", "4_coat",
    "5_sandal", "6_shirt", "7_sneaker", "8_bag", "9_ankle_boot",
)  # fmt: skip
TEST_IMAGES, CALIBRATION_IMAGES = 2000, 512
IDX_IMAGES_HEADER_BYTES, IDX_LABELS_HEADER_BYTES = 16, 8


def read_split(folder: Path, split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return images (N, 28, 28) uint8 and labels (N,) int64 of "train" or "t10k"."""
    with gzip.open(folder / f"{split}-images-idx3-ubyte.gz") as stream:
        images = np.frombuffer(stream.read(), np.uint8, offset=IDX_IMAGES_HEADER_BYTES).reshape(-1, 28, 28)
    with gzip.open(folder / f"{split}-labels-idx1-ubyte.gz") as stream:
        labels = np.frombuffer(stream.read(), np.uint8, offset=IDX_LABELS_HEADER_BYTES).astype(np.int64)
    return images, labels


def encode(image: npt.NDArray[np.uint8]) -> bytes:
    """Return a grayscale PNG of (28, 28) uint8."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def member(name: str) -> zipfile.ZipInfo:
    """Return a zip member that is independent of the clock, the umask and the system."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    return info


def write_sample(output: Path, data: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]], samples: int, licence: str) -> None:
    """Write `samples` images, balanced over the classes, into a zip with one folder per class; names are original indices."""
    images, labels = data
    indices = choose_indices(len(images), samples, labels)
    with atomic_write(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(member(LICENSE_NAME), licence)
        for index in sorted(indices, key=lambda index: (labels[index], index)):
            archive.writestr(member(f"{CLASSES[labels[index]]}/{index:05d}.png"), encode(images[index]))


def main() -> None:
    """Write both zips."""
    parser = argparse.ArgumentParser(description="Make the bundled image samples from Fashion-MNIST's idx files.")
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="folder of the idx files")
    parser.add_argument("--output", type=Path, default=BUNDLED, help="folder to write to")
    arguments = parser.parse_args()
    licence = (BUNDLED / LICENSE_NAME).read_text(encoding="utf-8")
    write_sample(arguments.output / "fashion_mnist_test.zip", read_split(arguments.data, "t10k"), TEST_IMAGES, licence)
    write_sample(
        arguments.output / "fashion_mnist_calibration.zip", read_split(arguments.data, "train"), CALIBRATION_IMAGES, licence
    )


if __name__ == "__main__":
    main()
