"""Finds the images among the files of a data set, and their classes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from emca_deploy.data.files import FileStore, printable
from emca_deploy.data.preprocess import IMAGE_SUFFIXES
from emca_deploy.errors import DataError

__all__ = ["Layout", "are_numbers", "find_images", "find_named"]

MOST_DIGITS = 20
MOST_ROOTS = 16
"""Folders in which images are looked for by name."""

PARTS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing", "eval", "dev"))
"""Names of folders with the parts of a data set; no network has classes of these names only."""


@dataclass(frozen=True)
class Layout:
    """The images of a data set, in order.

    Attributes:
        names: Names of the images, relative to `root`.
        root: Folder around everything, with a slash, or "".
        classes: Names of the classes in order; empty for a flat folder.
        labels: Index into `classes` of each image; empty for a flat folder.
    """

    names: tuple[str, ...]
    root: str
    classes: tuple[str, ...]
    labels: tuple[int, ...]


def find_images(store: FileStore, *, may_be_wrapped: bool) -> Layout:
    """Find the images and their classes: the first folder in a name is the class. Hidden and other files are left out.

    A single top folder that has only folders in it wraps the data set. With `may_be_wrapped`, so does one that has only images in
    it, as zip programs make; otherwise it is the only class.

    Raises:
        DataError: there are no images, images next to class folders, a class folder without images, or parts of a data set
            (train/, val/) instead of classes.
    """
    seen = [name for name in store.names if not _hidden(name)]
    images = [n for n in seen if not n.endswith("/") and PurePosixPath(n).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DataError(f"{store.path}: has no images", f"known suffixes are {' '.join(sorted(IMAGE_SUFFIXES))}")
    root = _wrapping(images, 2 if may_be_wrapped else 3)
    seen = [name[len(root) :] for name in seen if name.startswith(root) and name != root]
    images = [name[len(root) :] for name in images]
    in_folders = [name for name in images if "/" in name]
    if not in_folders:
        return Layout(tuple(sorted(images)), root, (), ())
    if len(in_folders) < len(images):
        stray = min(set(images) - set(in_folders))
        raise DataError(
            f"{store.path}: has image '{printable(stray)}' next to class folders",
            "put it into a class folder, or all images into one flat folder",
        )
    classes = _classes(store, seen, in_folders)
    index = {name: label for label, name in enumerate(classes)}
    labelled = sorted((index[name.split("/", 1)[0]], name) for name in images)
    return Layout(tuple(name for _, name in labelled), root, classes, tuple(label for label, _ in labelled))


def find_named(store: FileStore, names: Sequence[str]) -> Layout:
    """Find images by name, in a flat layout in the order of the names.

    A name may lack the folder around all images.

    Raises:
        DataError: an image is not there.
    """
    known = set(store.names)
    shown = [name for name in store.names if not _hidden(name) and not name.endswith("/")]
    roots = [""] if not shown else ["", *sorted({name[: name.rfind("/") + 1] for name in shown} - {""}, key=len)]
    missing = {root: [name for name in names if root + name not in known] for root in roots[:MOST_ROOTS]}
    root = min(missing, key=lambda one: len(missing[one]))
    if missing[root]:
        problem = f"{printable(str(store.path))}: lacks {len(missing[root]):,} of {len(names):,} images"
        raise DataError(f"{problem}, the first is '{printable(missing[root][0])}'", "name the folder that has all of them")
    return Layout(tuple(names), root, (), ())


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _wrapping(images: Sequence[str], least_depth: int) -> str:
    tops = {name.split("/", 1)[0] for name in images}
    if len(tops) == 1 and all(name.count("/") + 1 >= least_depth for name in images):
        return f"{tops.pop()}/"
    return ""


def _classes(store: FileStore, seen: Sequence[str], images: Sequence[str]) -> tuple[str, ...]:
    folders = {name.split("/", 1)[0] for name in seen if "/" in name}
    empty = folders - {name.split("/", 1)[0] for name in images}
    if empty:  # without it, the labels of all classes after it would be wrong
        raise DataError(f"{store.path}: class folder '{printable(min(empty))}' has no images", "remove the folder or fill it")
    if len(folders) > 1 and all(name.lower() in PARTS for name in folders):
        named = " and ".join(f"{name}/" for name in sorted(folders))
        part = next((name for name in sorted(folders) if name.lower().startswith(("val", "test"))), min(folders))
        remedy = f"name one of them: {store.path / part}" if store.path.is_dir() else "make a zip of one of them"
        raise DataError(f"{store.path}: {named} are parts of a data set, not classes", remedy)
    return tuple(sorted(folders, key=lambda name: (int(name), name)) if are_numbers(folders) else sorted(folders))


def are_numbers(names: Collection[str]) -> bool:
    """Return whether all names are numbers."""
    return all(name.isascii() and name.isdigit() and len(name) < MOST_DIGITS for name in names)
