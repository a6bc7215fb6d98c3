"""Checks of single entries of COCO's JSON; each error says which entry of which file is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from emca_deploy._text import printable
from emca_deploy.data.rle import compress, decompress
from emca_deploy.errors import DataError
from emca_deploy.preprocessing import MAX_PIXELS

__all__ = ["Entry", "Polygons", "RunLengths", "Segmentation"]

LARGEST_ID = 2**63
REMEDY = "correct the entry, or leave it out"

Polygons = list[list[float]]
"""Polygons of one object, each x1, y1, x2, y2, ... in pixels."""


@dataclass(frozen=True)
class RunLengths:
    """A mask as COCO's compressed run lengths, see `data.rle`."""

    text: bytes


Segmentation = Polygons | RunLengths


@dataclass(frozen=True)
class Entry:
    """One object in one of the lists of a file.

    Attributes:
        path: Path of the file.
        name: Place of the entry, such as "annotations[3]".
        values: Content of the entry.

    Every method raises DataError where the value is missing or wrong.
    """

    path: Path
    name: str
    values: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path, group: str, index: int, value: Any) -> "Entry":
        """Return an entry, checked to be an object."""
        entry = cls(path, f"{group}[{index}]", value)
        if not isinstance(value, Mapping):
            raise entry.wrong("is not an object")
        return entry

    def wrong(self, what: str) -> DataError:
        """Return the error for this entry."""
        return DataError(f"{printable(str(self.path))}: {self.name} {what}", REMEDY)

    def id(self, key: str) -> int:
        """Return an id."""
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= LARGEST_ID:
            raise self.wrong(f"has {key} {_shown(value)}, which is not an integer")
        return value

    def text(self, key: str) -> str:
        """Return a text that is not empty."""
        value = self._value(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(f"has {key} {_shown(value)}, which is not text")
        return value

    def size(self) -> tuple[int, int]:
        """Return (height, width) in pixels."""
        height, width = self.id("height"), self.id("width")
        if min(height, width) < 1 or height * width > MAX_PIXELS:
            raise self.wrong(f"is {width}x{height} pixels, which no image is")
        return height, width

    def box(self) -> tuple[float, float, float, float]:
        """Return x, y, width and height in pixels."""
        value = self._value("bbox")
        if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
            raise self.wrong(f"has bbox {_shown(value)}, which is not [x, y, width, height]")
        x, y, width, height = map(float, value)
        return x, y, width, height

    def area(self) -> float | None:
        """Return the area in square pixels; None where the entry has none."""
        value = self.values.get("area")
        if value is not None and not _is_number(value):
            raise self.wrong(f"has area {_shown(value)}, which is not a number")
        return None if value is None else float(value)

    def flag(self, key: str) -> bool:
        """Return a flag that is 0 or 1, and 0 where it is missing."""
        value = self.values.get(key, 0)
        if value not in (0, 1):
            raise self.wrong(f"has {key} {_shown(value)}, which is neither 0 nor 1")
        return bool(value)

    def segmentation(self, size: tuple[int, int]) -> Segmentation | None:
        """Return the mask of an object in an image of `size` (height, width); None where the entry has none."""
        value = self.values.get("segmentation")
        if value is None or value == []:
            return None
        if isinstance(value, list):
            return self._polygons(value)
        if not isinstance(value, Mapping) or "size" not in value or "counts" not in value:
            raise self.wrong("has a segmentation that is neither polygons nor run lengths")
        return self._run_lengths(value, size)

    def _polygons(self, value: list[Any]) -> Polygons:
        for polygon in value:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(_is_number, polygon)):
                raise self.wrong("has a polygon that is not at least three pairs of x and y")
        return value

    def _run_lengths(self, value: Mapping[str, Any], size: tuple[int, int]) -> RunLengths:
        if value["size"] != list(size):
            raise self.wrong(f"has a mask of size {_shown(value['size'])} for an image of {list(size)}")
        counts = value["counts"]
        try:
            if isinstance(counts, str):
                text = counts.encode("ascii")
                lengths = decompress(text)
            elif isinstance(counts, list) and all(type(one) is int and 0 <= one <= MAX_PIXELS for one in counts):
                lengths = np.array(counts, np.int64)
                text = compress(lengths)
            else:
                raise self.wrong("has run lengths that are neither text nor a list of counts")
        except ValueError as exc:
            raise self.wrong(f"has a mask that cannot be read: {exc}") from exc
        if int(lengths.sum()) != size[0] * size[1]:
            raise self.wrong(f"has a mask of {int(lengths.sum())} pixels for an image of {size[0] * size[1]}")
        return RunLengths(text)

    def _value(self, key: str) -> Any:
        if key not in self.values:
            raise self.wrong(f"has no '{key}'")
        return self.values[key]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST_ID and isfinite(value)


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= LARGEST_ID:
        return "a number that is too large"
    return printable(repr(value)[:60])
