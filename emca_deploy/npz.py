"""Reading of .npz files: a damaged or hostile file raises one exception, and takes no more memory than its size."""

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
"""Exceptions of reading a damaged zip; RuntimeError includes NotImplementedError, for an unknown compression."""

MAX_MEMBERS = 100_000
MAX_UNPACKED_BYTES = 16 << 30
LAST_CHARACTER = 0x10FFFF


def npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return (shape, whether in Fortran's order, type) from the header of an array.

    Raises:
        ValueError: the header is not one of an array, or is damaged.
        READ_ERRORS: the stream cannot be read.
    """
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy format {version}, which only arrays of records need")
    try:
        shape, fortran_order, dtype = readers[version](stream)
    except (SyntaxError, TokenError, TypeError, KeyError, RecursionError, MemoryError) as exc:
        raise ValueError("its header is damaged") from exc  # a header is a Python literal
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"its shape {shape} is not valid")
    return tuple(shape), bool(fortran_order), dtype


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return all arrays of an .npz by name. Nothing is unpickled, and no more is unpacked than the headers say.

    Raises:
        ValueError: the file cannot be read, is damaged, or has something other than arrays of numbers and text.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")
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
            raise ValueError(f"array '{member.filename}' does not match its header")
        data = bytearray()
        while piece := stream.read(1 << 20):  # grows with the data, not with the claimed size
            data += piece
    if len(data) != size:
        raise ValueError(f"array '{member.filename}' is cut off")
    if not size:
        return np.zeros(shape, dtype)
    if dtype.kind == "U" and np.frombuffer(data, np.dtype(np.uint32).newbyteorder(dtype.byteorder)).max() > LAST_CHARACTER:
        raise ValueError(f"array '{member.filename}' has invalid characters")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")
