"""Images whose predicted class differs between a candidate and its reference, and a file of them."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from emca_deploy._text import shell_word
from emca_deploy.arrays import Int64Array
from emca_deploy.artifacts import write_text
from emca_deploy.errors import InputError, OutputError
from emca_deploy.results.accuracy import Flip, Flips

__all__ = ["MOST_SHOWN", "FlipsFile", "ImageNames", "encodable", "find_flips", "flip_rows"]

MOST_SHOWN = 200
"""Largest number of flips in a result; a file lists all of them."""


@dataclass(frozen=True)
class ImageNames:
    """Names of a data set's images and classes.

    Attributes:
        classes: Names of the classes by label; may be empty.
        indices: Number in the data set of each row of the logits; None if they are the same.
        files: File name of each row of the logits; may be empty.
    """

    classes: tuple[str, ...] = ()
    indices: tuple[int, ...] | None = None
    files: tuple[str, ...] = ()

    def index(self, row: int) -> int:
        """Return the image's number in the data set."""
        return row if self.indices is None else self.indices[row]

    def file(self, row: int) -> str:
        """Return the image's name in the data set, or ""."""
        return self.files[row] if self.files else ""


def find_flips(
    candidate: Int64Array,
    reference: Int64Array,
    labels: Int64Array | None,
    names: ImageNames | None,
    most: int | None = MOST_SHOWN,
) -> Flips:
    """Return the images whose class differs.

    Args:
        candidate: Classes that the candidate predicts, (N,) int64.
        reference: Classes that the reference predicts, (N,) int64.
        labels: True classes, (N,) int64, or None.
        names: Names of the images; None lists none of them.
        most: Largest number of images to list; None lists all.
    """
    rows = np.flatnonzero(candidate != reference)
    shown = rows[:most] if names is not None else rows[:0]
    images = tuple(
        Flip(
            index=names.index(row) if names else row,
            file=names.file(row) if names else "",
            label=None if labels is None else int(labels[row]),
            reference=int(reference[row]),
            candidate=int(candidate[row]),
        )
        for row in map(int, shown)
    )
    if labels is None:
        return Flips(len(rows), None, None, images)
    lost, won = (int((side[rows] == labels[rows]).sum()) for side in (reference, candidate))
    return Flips(len(rows), lost, won, images)


class FlipsFile:
    """A .csv or .json file of flips, one per row or object. Its path is checked at once, before the measuring.

    Raises:
        InputError: the suffix is another one.
        OutputError: the folder does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.suffix.lower() not in (".csv", ".json"):
            raise InputError(f"{path}: flips are written as .csv or .json", "end the file's name with one of these")
        if not path.parent.is_dir():
            raise OutputError(
                f"{path}: cannot be written: no such folder", f"make the folder first: mkdir -p {shell_word(str(path.parent))}"
            )

    def write(self, heads: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the flips, whole or not at all; every row has the keys `heads`.

        Raises:
            OutputError: the file cannot be written.
        """
        if self._path.suffix.lower() == ".json":
            write_text(self._path, json.dumps(rows, indent=1) + "\n")
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, heads, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self._path, text.getvalue())


_CLASSES = ("label", "reference", "candidate")


def flip_rows(flips: Flips, classes: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the headings and rows of a file of flips, with the names of the classes if they have any."""
    if all(name == str(label) for label, name in enumerate(classes)):
        classes = ()
    heads = [field.name for field in fields(Flip)] + [f"{name}_name" for name in _CLASSES if classes]
    return heads, [{**asdict(flip), "file": encodable(flip.file), **_named(flip, classes)} for flip in flips.images]


def encodable(name: str) -> str:
    """Return a file name as valid UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _named(flip: Flip, classes: Sequence[str]) -> dict[str, str]:
    if not classes:
        return {}
    values = {name: getattr(flip, name) for name in _CLASSES}
    return {f"{name}_name": encodable(classes[v]) if v is not None and v < len(classes) else "" for name, v in values.items()}
