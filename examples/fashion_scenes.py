"""Scenes of Fashion-MNIST garments on textured ground, with exact boxes and masks.

    python examples/fashion_scenes.py -o scenes.zip --annotations scenes.json --split t10k --count 1000

A scene has one to five garments, each resized, tinted, and mirrored or not. A later garment covers at most 30% of an earlier one.
Training scenes have training garments only, test scenes test garments only. Each scene depends only on a seed and its number.
The data are the idx files of Fashion-MNIST (Debian: `apt-get install dataset-fashion-mnist`; MIT licence).
"""

import argparse
import gzip
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DATA = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SIZE = 96
TEST_SEED = 1_000_000
MOST_GARMENTS = 5
MOST_COVERED = 0.3
SMALLEST, LARGEST = 0.25, 0.58
"""Sides of a garment's square, as shares of the scene's side."""

ATTEMPTS = 8
OPAQUE = 24
"""Grey value from which a pixel of a garment belongs to it."""


@dataclass(frozen=True)
class Garments:
    """Images (N, 28, 28) uint8 and labels (N,) of one split."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A scene.

    Attributes:
        image: RGB image (S, S, 3) uint8.
        owner: Number of the garment that each pixel shows, counted from 1, or 0 for the ground; (S, S) uint8.
        labels: Class of each garment (G,).
    """

    image: np.ndarray
    owner: np.ndarray
    labels: np.ndarray

    def masks(self) -> np.ndarray:
        """Return the visible pixels of each garment, (G, S, S) bool."""
        return self.owner[None] == np.arange(1, len(self.labels) + 1)[:, None, None]

    def boxes(self) -> np.ndarray:
        """Return the box of each garment's visible pixels, (G, 4) float32 as x1, y1, x2, y2."""
        boxes = []
        for mask in self.masks():
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        return np.array(boxes, np.float32).reshape(-1, 4)


def read_garments(folder: Path, split: str) -> Garments:
    """Return the garments of "train" or "t10k"."""
    with gzip.open(folder / f"{split}-images-idx3-ubyte.gz") as stream:
        images = np.frombuffer(stream.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{split}-labels-idx1-ubyte.gz") as stream:
        return Garments(images, np.frombuffer(stream.read(), np.uint8, offset=8))


def _ground(size: int, random: np.random.Generator) -> np.ndarray:
    """Return a textured ground (S, S, 3) float: coarse and fine noise, and stripes, around a random colour."""
    ground = np.empty((size, size, 3), np.float32)
    ground[:] = random.uniform(30, 200, 3)
    for cells in (4, 12):
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        ground += (np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC), np.float32) - 128) * random.uniform(0.1, 0.4)
    along = np.arange(size) * random.uniform(0.1, 0.9)
    stripes = np.sin(along[None, :] * random.uniform(-1, 1) + along[:, None] * random.uniform(-1, 1))
    ground += (stripes * random.uniform(0, 30))[..., None]
    return ground + random.normal(0, random.uniform(0, 8), (size, size, 1)).astype(np.float32)


def _garment(image: np.ndarray, side: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a garment's colours (side, side, 3) float and its pixels (side, side) bool."""
    image = image[:, ::-1] if random.random() < 0.5 else image
    grey = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR), np.float32)
    tint = random.uniform(0.55, 1.25, 3).astype(np.float32)
    return (grey[..., None] * 0.85 + 38) * tint, grey >= OPAQUE


def make_scene(garments: Garments, size: int, seed: int, number: int) -> Scene:
    """Return scene `number` of a seed."""
    random = np.random.default_rng((seed, number))
    image, owner = _ground(size, random), np.zeros((size, size), np.uint8)
    labels: list[int] = []
    areas: list[int] = []
    for _ in range(random.integers(1, MOST_GARMENTS + 1)):
        chosen = int(random.integers(len(garments.images)))
        side = round(size * random.uniform(SMALLEST, LARGEST))
        colours, pixels = _garment(garments.images[chosen], side, random)
        for _ in range(ATTEMPTS):
            top, left = random.integers(0, size - side + 1, 2)
            window = np.s_[top : top + side, left : left + side]
            covered = np.bincount(owner[window][pixels], minlength=len(labels) + 1)
            visible = np.bincount(owner.ravel(), minlength=len(labels) + 1)
            remaining = (visible - covered)[1:]
            if all(rest >= (1 - MOST_COVERED) * area for rest, area in zip(remaining, areas, strict=True)):
                image[window][pixels] = colours[pixels]
                labels.append(int(garments.labels[chosen]))
                areas.append(int(pixels.sum()))
                owner[window][pixels] = len(labels)
                break
    return Scene(np.clip(image, 0, 255).astype(np.uint8), owner, np.array(labels, np.int64))


def run_lengths(mask: np.ndarray) -> list[int]:
    """Return the run lengths of a mask (H, W) column by column, that of zeros first: COCO's uncompressed RLE."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(np.concatenate([[False], pixels])))
    return [int(length) for length in np.diff([0, *changes, len(pixels)])]


def annotations(scenes: list[Scene]) -> dict[str, Any]:
    """Return the annotations of scenes in COCO's format; image numbers and category numbers count from 1."""
    objects: list[dict[str, Any]] = []
    for image, scene in enumerate(scenes, 1):
        for label, mask, box in zip(scene.labels.tolist(), scene.masks(), scene.boxes().tolist(), strict=True):
            left, top, right, below = box
            objects.append({
                "id": len(objects) + 1, "image_id": image, "category_id": label + 1, "iscrowd": 0, "area": int(mask.sum()),
                "bbox": [left, top, right - left, below - top],
                "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
            })  # fmt: skip
    images = [
        {"id": image, "file_name": file_name(image), "height": scene.image.shape[0], "width": scene.image.shape[1]}
        for image, scene in enumerate(scenes, 1)
    ]
    return {
        "info": {"description": "Scenes of Fashion-MNIST garments"},
        "licenses": [{"id": 1, "name": "MIT", "url": "https://github.com/zalandoresearch/fashion-mnist/blob/master/LICENSE"}],
        "images": images,
        "annotations": objects,
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
    }


def file_name(image: int) -> str:
    """Return the name of an image's file."""
    return f"scene{image:05d}.png"


def write_images(path: Path, scenes: list[Scene]) -> None:
    """Write the images into a zip that is the same byte for byte each time."""
    with zipfile.ZipFile(path, "w") as archive:
        for image, scene in enumerate(scenes, 1):
            stream = io.BytesIO()
            Image.fromarray(scene.image).save(stream, "PNG")
            archive.writestr(zipfile.ZipInfo(file_name(image), (1980, 1, 1, 0, 0, 0)), stream.getvalue())


def main() -> None:
    """Write scenes and their annotations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="zip of images to write")
    parser.add_argument("--annotations", type=Path, required=True, help="JSON file in COCO's format to write")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--split", choices=("train", "t10k"), default="t10k", help="garments of the scenes")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first scene")
    parser.add_argument("--seed", type=int, default=TEST_SEED)
    args = parser.parse_args()
    try:
        garments = read_garments(args.data, args.split)
        scenes = [make_scene(garments, SIZE, args.seed, args.first + number) for number in range(args.count)]
        write_images(args.output, scenes)
        args.annotations.write_text(json.dumps(annotations(scenes), separators=(",", ":")), encoding="utf-8")
    except OSError as exc:
        parser.error(str(exc))


if __name__ == "__main__":
    main()
