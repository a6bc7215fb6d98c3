"""The network's output that each image belongs to, by its folder or by a file, and checks of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from emca_deploy.data.label_files import LabelFile, read_class_map
from emca_deploy.data.layout import are_numbers
from emca_deploy.errors import DataError
from emca_deploy.preprocessing import Labelling

__all__ = ["MAX_CLASSES", "Labels", "LabelsFound", "check_classes", "class_warnings", "label_images"]

Labels = npt.NDArray[np.int64]

MAX_CLASSES = 1 << 20
"""Upper limit of a class index."""


@dataclass(frozen=True)
class LabelsFound:
    """The labels of a data set.

    Attributes:
        labels: Index of one of the network's outputs for each image, (N,) int64.
        classes: Names by label; a label without a name has its number.
        count: Number of classes: folders, or different labels in a file.
        source: Where the labels come from.
        said: Whether the user or the data set itself gives the output of each class; fewer classes than outputs are then normal.
        as_strings: Labels if number-named folders were sorted as strings, where that differs and no option sets the order.
    """

    labels: Labels
    classes: tuple[str, ...]
    count: int
    source: Literal["folders", "file", "array"]
    said: bool
    as_strings: "LabelsFound | None" = None


def label_images(
    names: Sequence[str], folders: Sequence[str], by_folder: Sequence[int], labelling: Labelling, own: Labels | None = None
) -> LabelsFound | None:
    """Return the labels of the images `names`; None where there are no class folders, no `own` labels and no file of labels.

    `folders` are in the order of their labels, empty for a flat folder; `by_folder` has an index into them for each image. An
    array of images may have its `own` labels, (N,) int64, which a class map does not change.

    Raises:
        DataError: a file cannot be read, lacks an image or a class, or a label is not an index.
    """
    if labelling.labels is not None:
        return _offset(_from_file(names, labelling), labelling)
    if own is not None:
        classes = tuple(str(label) for label in range(int(own.max()) + 1))
        return _offset(LabelsFound(own, classes, len(set(own.tolist())), "array", said=True), labelling)
    return _offset(_from_folders(folders, np.array(by_folder, np.int64), labelling), labelling) if folders else None


def _from_folders(folders: Sequence[str], by_folder: Labels, labelling: Labelling) -> LabelsFound:
    numbered = are_numbers(folders)
    in_string_order = sorted(folders)
    by_string = [in_string_order.index(name) for name in folders]
    if labelling.class_map is not None:
        outputs = _mapped(folders, labelling.class_map)
    elif labelling.order is not None and labelling.order != "string" and not numbered:
        word = next(name for name in folders if not are_numbers([name]))
        raise DataError(f"--class-order {labelling.order}: class folder '{word}' is not a number", "leave the option out")
    elif labelling.order == "index":
        outputs = [int(name) for name in folders]
    elif labelling.order == "string":
        outputs = by_string
    else:
        outputs = list(range(len(folders)))
    found = _found(outputs, folders, by_folder, "folders", said=labelling.says_outputs)
    if numbered and labelling.order is None and labelling.class_map is None and list(folders) != in_string_order:
        return replace(found, as_strings=_found(by_string, folders, by_folder, "folders", said=labelling.says_outputs))
    return found


def _from_file(names: Sequence[str], labelling: Labelling) -> LabelsFound:
    assert labelling.labels is not None
    file = LabelFile(labelling.labels)
    words, known = file.of(names), file.classes(names)
    position = {word: index for index, word in enumerate(known)}
    by_name = np.array([position[word] for word in words], np.int64)
    numbers = all(word.removeprefix("-").isascii() and word.removeprefix("-").isdigit() and len(word) < 10 for word in known)
    if labelling.class_map is not None:
        outputs = _mapped(known, labelling.class_map)
    elif numbers:
        outputs = [int(word) for word in known]
    else:
        outputs = list(range(len(known)))
    return _found(outputs, known, by_name, "file", said=numbers or labelling.says_outputs)


def _mapped(classes: Sequence[str], class_map: Path) -> list[int]:
    outputs = read_class_map(class_map)
    missing = [name for name in classes if name not in outputs]
    if missing:
        problem = f"{class_map}: has no output for {len(missing)} of {len(classes)} classes, the first is '{missing[0]}'"
        raise DataError(problem, "add them: lines of 'name output'")
    return [outputs[name] for name in classes]


def _found(
    outputs: Sequence[int], classes: Sequence[str], by_class: Labels, source: Literal["folders", "file"], *, said: bool
) -> LabelsFound:
    by_output = dict(zip(outputs, classes, strict=True))
    count = max(by_output, default=-1) + 1
    if count > MAX_CLASSES:
        count = 0  # `_offset` refuses the labels
    names = tuple(by_output.get(label, str(label)) for label in range(count))
    return LabelsFound(np.array(outputs, np.int64)[by_class], names, len(classes), source, said)


def _offset(found: LabelsFound, labelling: Labelling) -> LabelsFound:
    """Add the offset, and refuse labels that are no index after it."""
    offset = labelling.offset
    labels = found.labels + offset
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < MAX_CLASSES:
            remedy = "give another --label-offset"
            if not offset:
                remedy = f"labels are 0 to {MAX_CLASSES - 1}; --label-offset N shifts them"
            raise DataError(f"label {label} is not a class index", remedy)
    classes = found.classes[-offset:] if offset < 0 else tuple(str(label) for label in range(offset)) + found.classes
    other = None if found.as_strings is None else _offset(found.as_strings, labelling)
    return replace(found, labels=labels, classes=classes, as_strings=other)


def check_classes(name: str, labels: Labels, outputs: int) -> None:
    """Refuse labels (N,) int64 that are not outputs of the network `name`, which has `outputs` classes.

    Raises:
        DataError: a label is negative or too high.
    """
    highest, lowest = int(labels.max()), int(labels.min())
    if lowest >= 0 and highest < outputs:
        return
    wrong = highest if highest >= outputs else lowest
    remedy = "name a data set of the model's own classes, one subfolder per class"
    if highest == outputs and lowest >= 1:
        remedy = "if labels count from 1: --label-offset -1"
    elif highest >= outputs:
        remedy += ", or give the output of each class with --class-map"
    raise DataError(f"the data set has label {wrong}, but {name} has {outputs} classes", remedy)


def class_warnings(found: LabelsFound, outputs: int) -> tuple[str, ...]:
    """Return warnings about labels that may be wrong although each is one of a network's `outputs`."""
    if found.count == outputs or (found.said and found.source != "file"):
        return ()
    things = "class folders" if found.source == "folders" else "classes"
    problem = f"the data set has {found.count} {things}, but the network has {outputs} outputs"
    contiguous = int(found.labels.max()) == found.count - 1
    if found.count == outputs - 1 and contiguous:
        return (f"{problem}: if output 0 is a background class, skip it with --label-offset 1",)
    if found.said:
        return ()
    numbers = [int(name) for name in found.classes if name.isascii() and name.isdigit()]
    if found.source == "folders" and len(numbers) == found.count and max(numbers) < outputs:
        remedy = "if their names are the outputs, use --class-order index; otherwise --class-map FILE"
    else:
        remedy = "give the output of each class with --class-map FILE"
    return (f"{problem}: the first class is assumed to be output 0, the next output 1; {remedy}",)
