"""Untrusted zip files: checked whole before anything is read; members are read one at a time and never unpacked to disk."""

import io
import re
import stat
import threading
import zipfile
from pathlib import Path
from typing import BinaryIO

from emca_deploy.data.files import FileStore, printable
from emca_deploy.errors import DataError
from emca_deploy.npz import READ_ERRORS

__all__ = ["ZipStore", "check_ratio", "open_zip"]

MAX_MEMBER_BYTES = 64 << 20
MAX_TOTAL_BYTES = 64 << 30
MAX_RATIO = 1000
ENCRYPTED = 0x1


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file and read its table of contents.

    Raises:
        DataError: it cannot be read, is not a zip file, or is truncated.
    """
    try:
        return zipfile.ZipFile(path)
    except OSError as exc:
        raise DataError(f"{path}: cannot be read: {exc.strerror or exc}", "check the path and its permissions") from exc
    except READ_ERRORS as exc:
        raise DataError(f"{path}: not a zip file, or truncated: {printable(str(exc))}", "copy or download it again") from exc


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse a zip file with anything other than plain files of sane size with plain relative names."""
    seen: set[str] = set()
    for member in members:
        wrong = _wrong_name(member) or _wrong_kind(member)
        if not wrong and member.filename in seen:
            wrong = "is there twice"
        if not wrong and member.file_size > MAX_MEMBER_BYTES:
            wrong = f"is larger than {MAX_MEMBER_BYTES >> 20} MiB when unpacked"
        if wrong:
            raise _refused(path, member, wrong)
        check_ratio(path, member)
        seen.add(member.filename)
    if sum(member.file_size for member in members) > MAX_TOTAL_BYTES:
        raise DataError(f"{path}: is larger than {MAX_TOTAL_BYTES >> 30} GiB when unpacked", "split it, or use a folder")


def check_ratio(path: Path, member: zipfile.ZipInfo) -> None:
    """Refuse a member that unpacks to over a thousand times its size, as a zip bomb does and no photograph.

    Raises:
        DataError: the member is compressed that much.
    """
    if member.file_size > MAX_RATIO * max(member.compress_size, 1):
        raise _refused(path, member, f"is compressed over {MAX_RATIO} times, as a zip bomb is")


def _refused(path: Path, member: zipfile.ZipInfo, wrong: str) -> DataError:
    return DataError(f"{path}: member '{printable(member.orig_filename)}' {wrong}", "make the zip again without it")


def _wrong_name(member: zipfile.ZipInfo) -> str | None:
    name = member.orig_filename  # as stored: zipfile cuts `filename` at a NUL
    if "\0" in name or not name:
        return "has no proper name"
    if "\\" in name:
        return "has a backslash in its name"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in name.split("/"):
        return "has '..' in its path"
    return None


def _wrong_kind(member: zipfile.ZipInfo) -> str | None:
    if member.flag_bits & ENCRYPTED:
        return "is encrypted"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a special file"
    return None


class ZipStore(FileStore):
    """The members of a zip file.

    Raises:
        DataError: the file is not a zip file, or a member is unsafe: no plain file, a bad name, or too large when unpacked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = open_zip(path)
        try:
            members = self._zip.infolist()
            _check_members(path, members)
        except BaseException:
            self._zip.close()
            raise
        self._members = {member.filename: member for member in members}
        self.names = tuple(self._members)
        self._lock = threading.Lock()

    def open(self, name: str) -> BinaryIO:
        """Unpack one member into memory."""
        try:
            with self._lock:
                return io.BytesIO(self._zip.read(self._members[name]))
        except READ_ERRORS as exc:
            reason = printable(str(exc)) or type(exc).__name__
            raise DataError(f"{self.describe(name)} cannot be unpacked: {reason}", "copy or download the zip again") from exc

    def size(self, name: str) -> int:
        """Return the member's size in bytes, unpacked."""
        return self._members[name].file_size

    def describe(self, name: str) -> str:
        """Return the zip's path and the member's name."""
        return f"{self.path}: member '{printable(name)}'"
