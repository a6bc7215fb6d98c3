"""The files of a data set in a folder (those of a zip are in `archives`), and whether they have changed."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from emca_deploy._text import printable
from emca_deploy.errors import DataError, InputError

__all__ = ["FileStore", "FolderStore", "listing_sha256", "printable", "read_text"]


class FileStore(ABC):
    """Files by name.

    Attributes:
        path: Folder or archive, for errors.
        names: Relative names with slashes, "a/b.png" for files and "a/" for folders, in no particular order.
    """

    path: Path
    names: tuple[str, ...]

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open one file for reading, from any thread.

        Raises:
            DataError: the file cannot be read.
        """

    @abstractmethod
    def size(self, name: str) -> int:
        """Return one file's size in bytes; 0 where it is unknown."""

    @abstractmethod
    def describe(self, name: str) -> str:
        """Return the name of one file in errors."""


class FolderStore(FileStore):
    """The files below a folder. Symbolic links are followed, special files left out.

    Raises:
        DataError: the folder cannot be listed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.names = tuple(_walk(path, "", ()))
        except OSError as exc:
            raise DataError(f"{printable(str(exc.filename))}: cannot be listed: {exc.strerror}", "check its permissions") from exc

    def open(self, name: str) -> BinaryIO:
        """Open one file for reading."""
        try:
            return (self.path / name).open("rb")
        except OSError as exc:
            raise DataError(f"{self.describe(name)}: cannot be read: {exc.strerror}", "check its permissions") from exc

    def size(self, name: str) -> int:
        """Return the file's size in bytes."""
        try:
            return (self.path / name).stat().st_size
        except OSError:  # removed since it was listed: opening it raises the error
            return 0

    def describe(self, name: str) -> str:
        """Return the file's path."""
        return printable(str(self.path / name))


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link to a folder around it
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield f"{prefix}{entry.name}/"
                if not entry.name.startswith("."):
                    yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", (*above, here))
            elif entry.is_file():
                yield prefix + entry.name


def listing_sha256(path: Path) -> str:
    """Return the sha256 in hex of the names, sizes and modification times of a folder's files, or of a .zip or .npz.

    It is far cheaper than `ImageSource.identity`, which reads every byte, but differs for a copy of the data set.

    Raises:
        DataError: the data set cannot be read.
    """
    names = sorted(name for name in FolderStore(path).names if not name.endswith("/")) if path.is_dir() else [""]
    total = hashlib.sha256()
    for name in names:
        place = path / name
        try:
            status = place.stat()
        except OSError as exc:
            reason = exc.strerror or exc
            raise DataError(f"{printable(str(place))}: cannot be read: {reason}", "check the path and its permissions") from exc
        total.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def read_text(path: Path, most_mib: int, what: str, error: type[InputError]) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        InputError: an `error`: the file is larger than `most_mib`, cannot be read or is not text; the remedy is to name `what`.
    """
    shown = printable(str(path))
    try:
        if path.stat().st_size > most_mib << 20:
            raise error(f"{shown}: is larger than {most_mib} MiB", f"name {what}")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        raise error(f"{shown}: cannot be read: {exc.strerror or exc}", "check the path and its permissions") from exc
    except UnicodeDecodeError as exc:
        raise error(f"{shown}: is not text in UTF-8", f"name {what}") from exc
