"""Arrays in an .npz: headers are checked before memory is allocated, large arrays are read from disk as needed."""

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.data.archives import check_ratio, open_zip
from emca_deploy.data.files import printable
from emca_deploy.errors import DataError
from emca_deploy.npz import READ_ERRORS, npy_header

__all__ = ["read_npz"]

MAX_UNPACKED_BYTES = 4 << 30
"""Limit for a compressed array, which is unpacked into memory whole."""

LOCAL_HEADER = struct.Struct("<26xHH")
"""Header of a zip member: 26 bytes, the length of its name, the length of its extra field."""


def read_npz(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return `images` and, if the .npz has them, `labels`. Nothing is unpickled.

    An uncompressed array (`np.savez`) is mapped from the file and may be larger than memory.

    Raises:
        DataError: the file is damaged, has no `images`, has an array of objects, or a compressed array is too large.
    """
    with open_zip(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if "images.npy" not in members:
            found = ", ".join(sorted(printable(name.removesuffix(".npy")) for name in members)) or "nothing"
            raise DataError(f"{path}: has no array 'images' (it has {found})", "np.savez(path, images=..., labels=...)")
        images = _read_member(path, archive, members["images.npy"])
        labels = _read_member(path, archive, members["labels.npy"]) if "labels.npy" in members else None
    return images, labels


@contextmanager
def _errors_of(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (*READ_ERRORS, MemoryError) as exc:
        reason = printable(" ".join(str(exc).split())) or type(exc).__name__
        raise DataError(f"{path}: array '{what}' cannot be read: {reason}", "save or copy the file again") from exc


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    name = member.filename.removesuffix(".npy")
    check_ratio(path, member)
    with _errors_of(path, name):
        with archive.open(member) as stream:
            shape, fortran_order, dtype = npy_header(stream)
            header_bytes = stream.tell()
        if dtype.hasobject:
            raise DataError(f"{path}: array '{name}' holds Python objects", "save numbers: images.astype(np.float32)")
        elements: int = prod(shape)
        if header_bytes + elements * dtype.itemsize != member.file_size:
            raise DataError(f"{path}: array '{name}' is not as long as its header says", "save the file again")
        if member.compress_type == zipfile.ZIP_STORED and elements:
            with archive.open(member) as stream:  # to its end, which checks the CRC and the local header
                while stream.read(1 << 20):
                    pass
            offset = _data_offset(path, member) + header_bytes
            return np.memmap(path, dtype, "r", offset, shape, "F" if fortran_order else "C")
        if member.file_size > MAX_UNPACKED_BYTES:
            raise DataError(
                f"{path}: array '{name}' is compressed and larger than {MAX_UNPACKED_BYTES >> 30} GiB",
                "save it with np.savez instead of np.savez_compressed, to be read from disk as needed",
            )
        with archive.open(member) as stream:
            array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            return array


def _data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Return the offset of a member's bytes; its local header has been checked."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        name_bytes, extra_bytes = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    return member.header_offset + LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)
