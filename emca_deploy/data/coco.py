"""Annotations of objects in COCO's JSON format: images, boxes, masks and categories, read without pycocotools."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy._text import printable
from emca_deploy.arrays import Float64Array, Int64Array
from emca_deploy.data.coco_entries import Entry, Segmentation
from emca_deploy.data.files import read_text
from emca_deploy.errors import DataError

__all__ = ["Category", "CocoAnnotations", "read_coco"]

LARGEST_MIB = 1024
WHAT = "a JSON file in COCO's format: images, annotations and categories"
SLACK_PX = 1.0
"""Width in pixels by which a box may reach over the image's border without a warning: COCO's own boxes are rounded."""


@dataclass(frozen=True)
class Category:
    """A kind of object; the ids of a file may have holes."""

    id: int
    name: str


@dataclass(frozen=True)
class CocoAnnotations:
    """The annotations of a data set of N images and M objects.

    Attributes:
        path: Path of the file.
        files: File names of the images, by rising id; an image may have no object.
        sizes: Height and width of the images in pixels, (N, 2) int64.
        categories: Categories by rising id; their positions are the labels, unless a class map says otherwise.
        image: Index of the object's image, (M,) int64.
        category: Index of the object's category, (M,) int64.
        boxes: Boxes of the objects as x, y, width, height in pixels, (M, 4) float64.
        areas: Areas of the objects in square pixels, (M,) float64.
        crowd: Whether the object is a crowd, (M,) bool: detections in it are neither right nor wrong, and it cannot be missed.
        masks: Masks of the objects, None for an object without one.
        entries: Place of the object in the file's list of annotations, (M,) int64.
        warnings: Faults that COCO's tools accept, a line each.
    """

    path: Path
    files: tuple[str, ...]
    sizes: Int64Array
    categories: tuple[Category, ...]
    image: Int64Array
    category: Int64Array
    boxes: Float64Array
    areas: Float64Array
    crowd: npt.NDArray[np.bool_]
    masks: tuple[Segmentation | None, ...]
    entries: Int64Array
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    @property
    def has_masks(self) -> bool:
        """Whether any object has a mask."""
        return any(mask is not None for mask in self.masks)

    def of_images(self, indices: Sequence[int]) -> "CocoAnnotations":
        """Return the annotations of some images, in their order."""
        place = np.full(len(self), -1)
        place[list(indices)] = np.arange(len(indices))
        kept = np.flatnonzero(place[self.image] >= 0)
        return replace(
            self,
            files=tuple(self.files[index] for index in indices),
            sizes=self.sizes[list(indices)],
            image=place[self.image[kept]],
            category=self.category[kept],
            boxes=self.boxes[kept],
            areas=self.areas[kept],
            crowd=self.crowd[kept],
            masks=tuple(self.masks[index] for index in kept),
            entries=self.entries[kept],
        )

    def check_masks(self) -> None:
        """Check that every object has a mask.

        Raises:
            DataError: an object has none.
        """
        missing = [index for index, mask in enumerate(self.masks) if mask is None]
        if missing:
            problem = f"{printable(str(self.path))}: annotations[{self.entries[missing[0]]}] has no segmentation"
            raise DataError(f"{problem}, as {len(missing):,} of {len(self.masks):,} objects", "add them, or leave all out")


def read_coco(path: Path) -> CocoAnnotations:
    """Read a file of annotations.

    Raises:
        DataError: the file cannot be read, is no JSON in COCO's format, has no image, or an entry is wrong.
    """
    document = _document(path)
    images = _images(path, document["images"])
    categories = _categories(path, document["categories"])
    return _Objects(path, images, categories).read(document["annotations"])


def _document(path: Path) -> Mapping[str, Any]:
    shown = printable(str(path))
    text = read_text(path, LARGEST_MIB, WHAT, DataError)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{shown}: is not JSON, or is damaged: {printable(str(exc))[:120]}", f"name {WHAT}") from exc
    if not isinstance(document, Mapping):
        raise DataError(f"{shown}: is not a JSON object", f"name {WHAT}")
    for group in ("images", "annotations", "categories"):
        if not isinstance(document.get(group), list):
            raise DataError(f"{shown}: has no list '{group}'", f"name {WHAT}")
    for group in ("images", "categories"):
        if not document[group]:
            raise DataError(f"{shown}: its list '{group}' is empty", f"name {WHAT}")
    return document


@dataclass(frozen=True)
class _Image:
    id: int
    file: str
    size: tuple[int, int]


def _images(path: Path, values: list[Any]) -> list[_Image]:
    entries = [Entry.of(path, "images", index, value) for index, value in enumerate(values)]
    images = [_Image(entry.id("id"), entry.text("file_name"), entry.size()) for entry in entries]
    _check_unique(entries, "id", [image.id for image in images])
    _check_unique(entries, "file_name", [image.file for image in images])
    return sorted(images, key=lambda image: image.id)


def _categories(path: Path, values: list[Any]) -> tuple[Category, ...]:
    entries = [Entry.of(path, "categories", index, value) for index, value in enumerate(values)]
    found = [Category(entry.id("id"), entry.text("name")) for entry in entries]
    _check_unique(entries, "id", [category.id for category in found])
    return tuple(sorted(found, key=lambda category: category.id))


def _check_unique(entries: list[Entry], key: str, values: list[Any]) -> None:
    seen = set()
    for entry, value in zip(entries, values, strict=True):
        if value in seen:
            raise entry.wrong(f"has the {key} {printable(str(value))} of an earlier entry")
        seen.add(value)


class _Objects:
    """Reads the objects, and counts the faults that COCO's tools accept."""

    def __init__(self, path: Path, images: list[_Image], categories: tuple[Category, ...]) -> None:
        self._path, self._images, self._categories = path, images, categories
        self._image_of = {image.id: index for index, image in enumerate(images)}
        self._category_of = {category.id: index for index, category in enumerate(categories)}
        self._faults: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def read(self, values: list[Any]) -> CocoAnnotations:
        """Return the annotations of the file's list."""
        rows = []
        for index, value in enumerate(values):
            row = self._row(Entry.of(self._path, "annotations", index, value))
            if row is not None:
                rows.append((*row, index))
        image, category, boxes, areas, crowd, masks, entries = zip(*rows, strict=True) if rows else ((),) * 7
        return CocoAnnotations(
            path=self._path,
            files=tuple(image.file for image in self._images),
            sizes=np.array([image.size for image in self._images], np.int64),
            categories=self._categories,
            image=np.array(image, np.int64),
            category=np.array(category, np.int64),
            boxes=np.array(boxes, np.float64).reshape(-1, 4),
            areas=np.array(areas, np.float64),
            crowd=np.array(crowd, np.bool_),
            masks=tuple(masks),
            entries=np.array(entries, np.int64),
            warnings=self._warnings(),
        )

    def _row(self, entry: Entry) -> tuple[Any, ...] | None:
        """Return an object's image, category, box, area, crowd and mask; None for one that no image or category has."""
        image, category = self._image_of.get(entry.id("image_id")), self._category_of.get(entry.id("category_id"))
        box, area, crowd = entry.box(), entry.area(), entry.flag("iscrowd")
        if image is None:
            self._count("belong to an image that is not listed; they were left out", entry)
            return None
        if category is None:
            self._count("have a category that is not listed; they were left out", entry)
            return None
        height, width = size = self._images[image].size
        if box[2] <= 0 or box[3] <= 0:
            self._count("have a box without area, which no detection can match", entry)
        elif min(box[:2]) < -SLACK_PX or box[0] + box[2] > width + SLACK_PX or box[1] + box[3] > height + SLACK_PX:
            self._count("have a box that reaches over the border of its image", entry)
        if area is None:
            self._count("have no area; that of the box is used", entry)
            area = box[2] * box[3]
        if not crowd and entry.flag("ignore"):
            self._count("are marked with 'ignore' but not with 'iscrowd'; COCO's rules count them", entry)
        return image, category, box, area, crowd, entry.segmentation(size)

    def _count(self, fault: str, entry: Entry) -> None:
        self._faults[fault] += 1
        self._first.setdefault(fault, entry.name)

    def _warnings(self) -> tuple[str, ...]:
        shown = printable(str(self._path))
        return tuple(
            f"{shown}: {count:,} object{'s' if count > 1 else ''} {fault} (the first is {self._first[fault]}): check the file"
            for fault, count in self._faults.items()
        )
