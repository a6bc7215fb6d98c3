"""Arrays in .npz files, read so that a damaged or hostile one is one exception and takes no memory it does not have."""

import lzma
import struct
import zipfile
import zlib
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import numpy.typing as npt

__all__ = ["READ_ERRORS", "npy_header", "read_arrays"]

READ_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError, ValueError
)  # fmt: skip
"""What reading a damaged zip raises; RuntimeError includes NotImplementedError, for an unknown compression."""

MAX_MEMBERS = 100_000
MAX_UNPACKED_BYTES = 16 << 30
LAST_CHARACTER = 0x10FFFF


def npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return (shape, whether in Fortran's order, type) from the header of an array.

    Raises:
        ValueError: it is none, or damaged.
        READ_ERRORS: it cannot be read.
    """
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy format {version}, which only arrays of records need")
    try:
        shape, fortran_order, dtype = readers[version](stream)
    except (SyntaxError, TokenError, TypeError, KeyError, RecursionError, MemoryError) as exc:
        raise ValueError("its header is damaged") from exc  # the header is a Python literal, and this one is none
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"its shape {shape} is none")
    return tuple(shape), bool(fortran_order), dtype


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return all arrays of an .npz by name. Nothing is unpickled, and no more is unpacked than the headers say.

    Raises:
        ValueError: it cannot be read, is damaged, or has something other than arrays of numbers and text.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
                raise ValueError("it is too large")
            return {member.filename.removesuffix(".npy"): _read(archive, member) for member in members}
    except FileNotFoundError:
        raise
    except (*READ_ERRORS, MemoryError) as exc:
        raise ValueError(str(exc) or type(exc).__name__) from exc


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(member) as stream:
        shape, fortran_order, dtype = npy_header(stream)
        size: int = prod(shape) * dtype.itemsize
        if dtype.hasobject or stream.tell() + size != member.file_size:
            raise ValueError(f"array '{member.filename}' is not as its header says")
        data = bytearray()
        while piece := stream.read(1 << 20):  # grows with what is there, not with what the table of contents claims
            data += piece
    if len(data) != size:
        raise ValueError(f"array '{member.filename}' is cut off")
    if not size:
        return np.zeros(shape, dtype)
    if dtype.kind == "U" and np.frombuffer(data, np.dtype(np.uint32).newbyteorder(dtype.byteorder)).max() > LAST_CHARACTER:
        raise ValueError(f"array '{member.filename}' has characters that there are not")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")
