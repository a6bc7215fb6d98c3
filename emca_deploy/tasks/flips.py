"""Images whose class a candidate changes: which, how many, and a file of them all."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from emca_deploy._text import shell_word
from emca_deploy.arrays import Int64Array
from emca_deploy.artifacts import write_text
from emca_deploy.errors import InputError, OutputError
from emca_deploy.results.accuracy import Flip, Flips

__all__ = ["MOST_SHOWN", "FlipsFile", "ImageNames", "find_flips"]

MOST_SHOWN = 200
"""Flips that a result lists one by one; a file of them lists all."""


@dataclass(frozen=True)
class ImageNames:
    """How a data set calls its images and classes.

    Attributes:
        classes: by label; empty where they have no names.
        indices: the image's number in the data set for each row of the logits; None where they are the same.
        files: its name for each row of the logits; empty where they have none.
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
        candidate: the candidate's class of each image, (N,) int64.
        reference: the reference's class of each image, (N,) int64.
        labels: (N,) int64, or None.
        names: what to call the images; None lists none of them.
        most: how many to list, None for all.
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
    """A .csv or .json file of all flips, one a row or an object. Its path is checked when it is made.

    Raises:
        InputError: another suffix.
        OutputError: no such folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.suffix.lower() not in (".csv", ".json"):
            raise InputError(f"{path}: flips are written as .csv or .json", "end the file's name with one of these")
        if not path.parent.is_dir():  # said now rather than after an hour of measuring
            raise OutputError(
                f"{path}: cannot be written: no such folder", f"make the folder first: mkdir -p {shell_word(str(path.parent))}"
            )

    def write(self, flips: Flips, classes: Sequence[str]) -> None:
        """Write the flips, whole or not at all; where the classes have names, these stand beside the numbers.

        Raises:
            OutputError: the file cannot be written.
        """
        if all(name == str(label) for label, name in enumerate(classes)):
            classes = ()  # names that are the numbers again say nothing
        rows = [{**asdict(flip), "file": _encodable(flip.file), **_named(flip, classes)} for flip in flips.images]
        if self._path.suffix.lower() == ".json":
            write_text(self._path, json.dumps(rows, indent=1) + "\n")
            return
        text = io.StringIO()
        heads = [field.name for field in fields(Flip)] + [f"{name}_name" for name in _CLASSES if classes]
        writer = csv.DictWriter(text, heads, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self._path, text.getvalue())


_CLASSES = ("label", "reference", "candidate")


def _encodable(name: str) -> str:
    """Return a file name that was no UTF-8 on its disk as one that is."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _named(flip: Flip, classes: Sequence[str]) -> dict[str, str]:
    if not classes:
        return {}
    values = {name: getattr(flip, name) for name in _CLASSES}
    return {f"{name}_name": _encodable(classes[v]) if v is not None and v < len(classes) else "" for name, v in values.items()}
