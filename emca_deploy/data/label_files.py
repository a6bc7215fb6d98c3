"""Files with the class of each image, and files with the network's output of each class."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from emca_deploy._text import printable
from emca_deploy.data.files import read_text
from emca_deploy.data.preprocess import IMAGE_SUFFIXES
from emca_deploy.errors import DataError, InputError

__all__ = ["LabelFile", "names_in_order", "read_class_map"]

LARGEST_MIB = 256
NAME_HEADINGS = (
    "filename", "file_name", "file", "image", "image_id", "imageid", "image_name", "image_path", "filepath", "path", "name", "id",
)  # fmt: skip
LABEL_HEADINGS = (
    "label", "labels", "class", "class_id", "classid", "target", "category", "category_id", "synset", "wnid", "label_id",
    "predictionstring",
)  # fmt: skip
FORMS = "lines of 'name label', a CSV of both, or ILSVRC's val.txt"


class LabelFile:
    """A file of labels by image name.

    Names match by the whole name in the data set, by the file's name alone, or by either without its suffix.

    Args:
        path: Lines "name label", a CSV with or without a heading, ILSVRC's val.txt or LOC_val_solution.csv.

    Raises:
        DataError: the file cannot be read, has a line without a label, or two labels for one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._labels: dict[str, str] = {}
        self._short: dict[str, str | None] = {}
        for number, name, label in _pairs(path):
            tidy = name.replace("\\", "/").removeprefix("./")
            if self._labels.setdefault(tidy, label) != label:
                problem = f"{printable(str(path))}: line {number} gives '{printable(tidy)}' another label than a line before"
                raise DataError(problem, "leave one of the two lines out")
            for key in _short_names(tidy):
                self._short[key] = label if self._short.get(key, label) == label else None
        if not self._labels:
            raise DataError(f"{printable(str(path))}: has no labels", f"known forms are {FORMS}")

    def classes(self, images: Sequence[str]) -> tuple[str, ...]:
        """Return all different labels, sorted, including those of images that are not in the data set.

        A first line whose name is no image of the data set and whose label no other line has is a heading.
        """
        first, *others = self._labels.items()
        if others and first[1] not in {label for _, label in others} and not any(self._find(name, first[0]) for name in images):
            return tuple(sorted({label for _, label in others}))
        return tuple(sorted(set(self._labels.values())))

    def of(self, names: Sequence[str]) -> list[str]:
        """Return the label of every image.

        Raises:
            DataError: an image has none.
        """
        found = [self._find(name) for name in names]
        missing = [name for name, label in zip(names, found, strict=True) if label is None]
        if missing:
            problem = f"{printable(str(self.path))}: has no label for {len(missing):,} of {len(names):,} images"
            raise DataError(f"{problem}, the first is '{printable(missing[0])}'", f"add them, or name another file; {FORMS}")
        return [label for label in found if label is not None]

    def _find(self, name: str, only: str | None = None) -> str | None:
        """Return the label of an image, or None; with `only`, the label on the line with this name."""
        path = PurePosixPath(name)
        whole = (name, str(path.with_suffix("")), path.name, path.stem)
        for key in whole:
            if key in self._labels:
                return self._labels[key] if only in (None, key) else None
        for key in (path.name, path.stem):
            label = self._short.get(key)
            if label is not None:
                return label if only is None or key in _short_names(only) else None
        return None


def _short_names(name: str) -> set[str]:
    """Return other names of a line's image: without its folders, and without the suffix of an image."""
    path = PurePosixPath(name)
    return {path.name, path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name}


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and fields: two for "name label", any number for a CSV."""
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    is_csv = "," in first and (path.suffix.lower() == ".csv" or not any(c.isspace() for c in first.split(",", 1)[0]))
    separator = "\t" if "\t" in first else "," if is_csv else None
    if separator is None:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, line.rsplit(None, 1)
        return
    reader = csv.reader(lines, delimiter=separator)
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield reader.line_num, [field.strip() for field in row]
    except csv.Error as exc:
        problem = f"{printable(str(path))}: line {reader.line_num} cannot be read: {printable(str(exc))}"
        raise DataError(problem, "correct it") from exc


def _pairs(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, image name and label."""
    rows = list(_rows(path, read_text(path, LARGEST_MIB, f"a file of {FORMS}", DataError)))
    name, label, has_heading, first_word = _columns(rows[:2])
    for number, row in rows[has_heading:]:
        if len(row) <= max(name, label) or not row[name] or not row[label]:
            problem = f"{printable(str(path))}: line {number} has no name with a label"
            raise DataError(problem, f"known forms are {FORMS}")
        yield number, row[name], row[label].split()[0] if first_word else row[label]


def _columns(rows: list[tuple[int, list[str]]]) -> tuple[int, int, bool, bool]:
    """Return the columns of name and label, whether the first row is a heading, and whether a label ends at the first blank.

    In ImageNet's LOC_val_solution.csv boxes follow the synset.
    """
    if not rows:
        return 0, 1, False, False
    heading = [field.lower() for field in rows[0][1]]
    name = next((heading.index(word) for word in NAME_HEADINGS if word in heading), None)
    label = next((heading.index(word) for word in LABEL_HEADINGS if word in heading), None)
    if name is not None or label is not None:
        others = [index for index in range(len(heading)) if index not in (name, label)] or [0]
        name, label = (others[0] if column is None else column for column in (name, label))
        return name, label, True, heading[label] == "predictionstring"
    images = [bool(row) and PurePosixPath(row[0]).suffix.lower() in IMAGE_SUFFIXES for _, row in rows]
    return 0, 1, images == [False, True], False


def read_class_map(path: Path) -> dict[str, int]:
    """Return the network's output by class name.

    Args:
        path: Lines "name output" or "output name", lines of names in the order of the outputs, a CSV of both, or JSON:
            {"0": "name"}, {"0": ["synset", "name"]}, {"name": 0}, a list of names, or a config.json with id2label.

    Raises:
        DataError: the file cannot be read, has another form, or gives one name two outputs.
    """
    shown, what = printable(str(path)), "a class map: lines of 'name output', or JSON"
    text = read_text(path, LARGEST_MIB, what, DataError)
    try:
        return _unique(_json_pairs(json.loads(text)) if text.lstrip()[:1] in ("{", "[") else _text_pairs(path, text))
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise DataError(f"{shown}: is not a class map: {printable(str(exc))[:200]}", f"name {what}") from exc


def names_in_order(names: Mapping[str, int], outputs: int | None, what: str) -> list[str]:
    """Return one name for each output of a network, by the output of each name; the first of several. `what` begins the error.

    Raises:
        InputError: an output has no name, or there are names for more outputs; None takes the number of names.
    """
    first: dict[int, str] = {}
    for name, output in names.items():
        first.setdefault(output, name)
    count = len(first) if outputs is None else outputs
    if sorted(first) != list(range(count)):
        missing = sorted(set(range(count)) - set(first))
        problem = f"no name for output {missing[0]}" if missing else f"a name for output {max(first)}"
        raise InputError(f"{what}: {problem}, and it has {count} outputs", "give one name for each output, in order")
    return [first[index] for index in range(count)]


def _unique(pairs: list[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, output in pairs:
        if output < 0 or found.setdefault(name, output) != output:
            raise ValueError(f"'{name}' is output {output}" + (f" and {found[name]}" if name in found else ""))
    if not found:
        raise ValueError("it is empty")
    return found


def _json_pairs(document: Any) -> list[tuple[str, int]]:
    if isinstance(document, Mapping):
        document = document.get("id2label") or document.get("label2id") or document
    if isinstance(document, list):
        if not all(isinstance(names, (str, list)) for names in document):
            raise ValueError("its list has something that is not a name")
        document = {str(index): names for index, names in enumerate(document)}
    by_output = all(str(key).isascii() and str(key).isdigit() and len(str(key)) < 10 for key in document)
    if by_output and not all(isinstance(value, int) for value in document.values()):
        several = {int(key): names if isinstance(names, list) else [names] for key, names in document.items()}
        if not all(isinstance(name, str) for names in several.values() for name in names):
            raise ValueError("it has something that is not a name")
        return [(str(name), output) for output, names in several.items() for name in names]
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in document.values()):
        raise ValueError("it has neither names by output nor outputs by name")
    return [(str(name), int(output)) for name, output in document.items()]


def _text_pairs(path: Path, text: str) -> list[tuple[str, int]]:
    rows = [row for _, row in _rows(path, text)]
    if all(len(row) >= 2 and _is_output(row[1]) for row in rows):
        return [(row[0].strip(), int(row[1])) for row in rows]
    if rows and all(len(row) >= 2 and _is_output(row[1]) for row in rows[1:]) and len(rows) > 1 and "," in text:
        return [(row[0], int(row[1])) for row in rows[1:]]  # a CSV with a heading
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    if all(len(line) == 2 and _is_output(line[0]) for line in lines):
        return [(line[1].strip(), int(line[0])) for line in lines]
    named = [(line[0], index) for index, line in enumerate(lines)]  # one line per output: the name, or the synset and its words
    return named + [(" ".join(line), index) for index, line in enumerate(lines) if len(line) > 1]


def _is_output(field: str) -> bool:
    return field.isascii() and field.isdigit() and len(field) < 10
