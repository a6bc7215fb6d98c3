"""The one archive that a set of files can have: an uncompressed zip, without dates, owners, comments or extra fields.

Names are in order, and every header follows from the name, the size and the CRC-32 of its file (PKWARE APPNOTE 6.3.10, sections
4.3.7, 4.3.12 and 4.3.16). A reader derives all headers again, so that no byte of an archive can differ from what it holds.
Any zip program can unpack it.
"""

import hashlib
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from emca_deploy.errors import BundleError, InputError

__all__ = ["MOST_FILES", "Archive", "Stored", "check_name", "damaged", "read_archive", "write_archive"]

MOST_FILES = 10_000
LARGEST = 2**32 - 1
"""Largest archive, in bytes; a larger one needs the fields of zip64."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
_LONGEST_NAME = 200
_VERSION, _UTF8, _STORED, _MIDNIGHT, _1980, _UNIX, _MODE = 20, 0x800, 0, 0, 0x21, 3 << 8, 0o100644 << 16
_PIECE = 1 << 20


@dataclass(frozen=True)
class _Member:
    """A file of an archive.

    Attributes:
        name: Relative path, with "/" between folders.
        size: Bytes.
        crc: CRC-32.
    """

    name: str
    size: int
    crc: int

    def _fields(self) -> tuple[int, ...]:
        return (_VERSION, _UTF8, _STORED, _MIDNIGHT, _1980, self.crc, self.size, self.size, len(self.name), 0)

    def header(self) -> bytes:
        """Return the header in front of the file's bytes."""
        return struct.pack("<I5H3I2H", 0x04034B50, *self._fields()) + self.name.encode()

    def entry(self, offset: int) -> bytes:
        """Return the entry of the central directory for a header at `offset`."""
        fields = struct.pack("<I6H3I5H2I", 0x02014B50, _UNIX | _VERSION, *self._fields(), 0, 0, 0, _MODE, offset)
        return fields + self.name.encode()


@dataclass(frozen=True)
class Stored:
    """A file of an archive that was read: its sha256 in hex, and where its bytes are."""

    sha256: str
    offset: int
    size: int


@dataclass(frozen=True)
class Archive:
    """An archive that was read: its files by name, and its own sha256 in hex."""

    files: dict[str, Stored]
    sha256: str


class _Hashed:
    """A stream whose bytes are hashed as they are read, so that an archive is read once."""

    def __init__(self, stream: BinaryIO) -> None:
        self.sha256, self.position, self._stream = hashlib.sha256(), 0, stream

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self.sha256.update(piece)
        self.position += len(piece)
        return piece


def check_name(name: str) -> str:
    """Return a name that every system can unpack: letters, digits and ._+- in folders, nothing hidden, nothing outside.

    Raises:
        BundleError: it is another one.
    """
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise BundleError(
            f"{name!r}: a bundle cannot have a file of that name",
            "name it with letters, digits and . _ + - only, then bundle again",
        )
    return name


def write_archive(output: BinaryIO, files: Mapping[str, Path]) -> None:
    """Write the archive of these files by name to a stream that can seek; each file is read once.

    Raises:
        BundleError: a name is not allowed, or there are too many bytes.
        InputError: a file cannot be read.
    """
    members, offsets = [], []
    for name in sorted(files):
        offsets.append(output.tell())
        members.append(_write_member(output, check_name(name), files[name]))
    output.write(_directory(members, offsets, output.tell()))


def _write_member(output: BinaryIO, name: str, path: Path) -> _Member:
    """Write a file behind a gap for its header, then the header, which needs the CRC-32."""
    start, size, crc = output.tell(), 0, 0
    first = start + len(_Member(name, 0, 0).header())
    output.seek(first)
    for piece in _pieces(path):
        size, crc = size + len(piece), zlib.crc32(piece, crc)
        if first + size > LARGEST:
            raise BundleError("a bundle holds 4 GiB at most", "leave a model out, or bundle into a folder")
        output.write(piece)
    member = _Member(name, size, crc)
    output.seek(start)
    output.write(member.header())
    output.seek(first + size)
    return member


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                yield piece
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}", "check the path and its permissions") from exc


def _directory(members: Sequence[_Member], offsets: Sequence[int], start: int) -> bytes:
    entries = b"".join(member.entry(offset) for member, offset in zip(members, offsets, strict=True))
    return entries + struct.pack("<I4H2IH", 0x06054B50, 0, 0, len(members), len(members), len(entries), start, 0)


def _members_of(path: Path) -> tuple[_Member, ...]:
    """Return the files that an archive's directory lists, whether or not the archive is canonical.

    Raises:
        BundleError: it is no zip archive, or lists what a bundle cannot have.
        InputError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}", "check the path and its permissions") from exc
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, EOFError) as exc:
        raise damaged(path, f"not a zip archive: {exc}") from exc
    names = [info.filename for info in found]
    if len(found) > MOST_FILES or names != sorted(set(names)):
        raise damaged(path, "its files are too many, out of order, or there twice")
    if sum(info.file_size for info in found) > path.stat().st_size:
        raise damaged(path, "its files are larger than the archive")
    return tuple(_Member(check_name(info.filename), info.file_size, info.CRC) for info in found)


def read_archive(path: Path) -> Archive:
    """Return a canonical archive, after comparing every byte outside its files; it is read once.

    Raises:
        BundleError: the archive is damaged or not canonical.
        InputError: it cannot be read.
    """
    members, found, offsets = _members_of(path), dict[str, Stored](), []
    try:
        with path.open("rb") as opened:
            stream = _Hashed(opened)
            for member in members:
                offsets.append(stream.position)
                header = member.header()
                if stream.read(len(header)) != header:
                    raise damaged(path, f"the header of {member.name} is not the one of a bundle")
                start = stream.position
                found[member.name] = Stored(_digest(stream, member, path), start, member.size)
            rest = _directory(members, offsets, stream.position)
            if stream.read(len(rest) + 1) != rest:
                raise damaged(path, "its directory is not the one of a bundle")
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}", "check the path and its permissions") from exc
    return Archive(found, stream.sha256.hexdigest())


def _digest(stream: _Hashed, member: _Member, path: Path) -> str:
    digest, crc, left = hashlib.sha256(), 0, member.size
    while left and (piece := stream.read(min(left, _PIECE))):
        digest.update(piece)
        crc, left = zlib.crc32(piece, crc), left - len(piece)
    if left or crc != member.crc:
        raise damaged(path, f"{member.name} is damaged")
    return digest.hexdigest()


def damaged(path: Path, why: str) -> BundleError:
    """Return the error for a bundle that is not what it was when it was made."""
    return BundleError(f"{path}: is damaged, or not a bundle: {why}", "copy the bundle again, or make it again with `bundle`")
