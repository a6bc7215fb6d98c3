"""Logits in a file: appended to as they come, so that an interrupted run goes on, and in the end an .npz to keep.

While a run is under way its logits lie in `FILE.npz.partial`: a line of JSON that says what they depend on, then records of whole
batches. When the last image is done, `FILE.npz` takes its place, written whole.
"""

import io
import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from emca_deploy.arrays import Float32Array, Int64Array
from emca_deploy.artifacts import atomic_write
from emca_deploy.errors import InputError, OutputError
from emca_deploy.harness.accuracy.flips import ImageNames
from emca_deploy.npz import read_arrays
from emca_deploy.preprocessing import Preprocessing

__all__ = ["Kept", "LogitsStore", "partial_path"]

STORE_VERSION = 1

_RECORD = struct.Struct("<QIII")
"""Of the rows that follow: the number of the first, how many, their width, and the CRC-32 of their bytes."""

_MOST_ROW_BYTES = 1 << 30
_OTHER = "name another file"


@dataclass(frozen=True)
class Kept:
    """A complete run, as its file has it.

    Attributes:
        logits: (N, classes) float32.
        labels: (N,) int64, or None.
        names: of its images.
    """

    logits: Float32Array
    labels: Int64Array | None
    names: ImageNames


def partial_path(path: Path) -> Path:
    """Return where the logits lie until the last one is there."""
    return path.with_name(path.name + ".partial")


class LogitsStore:
    """A run's logits in a file. A context manager: no other process can write it meanwhile.

    Args:
        path: an .npz file, which need not be there yet.
        key: all that the logits depend on; JSON values. They are used again only if it is the same.

    Raises:
        InputError: the file has another suffix.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        if path.suffix.lower() != ".npz":
            raise InputError(f"{path}: logits are kept as .npz", "end the file's name with .npz")
        self.path = path
        self.partial = partial_path(path)
        self._key: dict[str, Any] = json.loads(json.dumps(key))
        self._stream: io.FileIO | None = None

    def __enter__(self) -> "LogitsStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._stream is not None:
            self._stream.close()

    def kept(self) -> Kept | None:
        """Return the complete run in the file, or None where there is no file yet.

        Raises:
            InputError: the file is none of ours, damaged, or another run's.
        """
        if not self.path.exists():
            return None
        try:
            arrays = read_arrays(self.path)
            self._check(self.path, dict(json.loads(str(arrays["key"]))))
            logits = np.asarray(arrays["logits"], np.float32)
            labels = np.asarray(arrays["labels"], np.int64) if "labels" in arrays else None
            indices = tuple(map(int, arrays["indices"])) if "indices" in arrays else None
            files, classes = (tuple(map(str, arrays[name])) for name in ("files", "classes"))
            _check_shapes(logits, labels, indices, files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise InputError(f"{self.path}: not a file of logits of ours: {exc}", _OTHER) from exc
        self.partial.unlink(missing_ok=True)  # of a run that was killed when it was done
        return Kept(logits, labels, ImageNames(classes, indices, files))

    def resume(self) -> list[Float32Array]:
        """Open the file for appending and return what it has already, whole batches (n, classes) float32 in order.

        What follows a damaged record is cut off: the images it was about are run again.

        Raises:
            InputError: it is another run's, or another process is writing it.
            OutputError: it cannot be written.
        """
        try:
            return self._resume()
        except OSError as exc:
            raise self._output_error(exc) from exc

    def _resume(self) -> list[Float32Array]:
        # Unbuffered: what a full disk refused would be tried again on closing.
        self._stream = self.partial.open("ab", buffering=0)
        self._lock(self._stream)
        with self.partial.open("rb") as stream:
            header = stream.readline()
            if header:
                self._check_header(header)
            parts, end = _read_records(stream)
        self._stream.truncate(end)
        if not header:
            self._write(json.dumps({"version": STORE_VERSION, "key": self._key}).encode() + b"\n")
        return parts

    def append(self, start: int, logits: Float32Array) -> None:
        """Append a batch.

        Args:
            start: the number of its first row.
            logits: (n, classes) float32.

        Raises:
            OutputError: the disk is full.
        """
        rows = np.ascontiguousarray(logits, "<f4").tobytes()
        try:
            self._write(_RECORD.pack(start, *logits.shape, zlib.crc32(rows)) + rows)
        except OSError as exc:
            raise self._output_error(exc) from exc

    def complete(self, kept: Kept) -> None:
        """Write the finished run to the file, and remove the partial one.

        Raises:
            OutputError: it cannot be written.
        """
        names = kept.names
        arrays: dict[str, Any] = {"logits": kept.logits, "key": np.array(json.dumps(self._key))}
        arrays |= {"files": np.array(names.files, np.str_), "classes": np.array(names.classes, np.str_)}
        if kept.labels is not None:
            arrays["labels"] = kept.labels
        if names.indices is not None:
            arrays["indices"] = np.array(names.indices, np.int64)
        with atomic_write(self.path) as temporary:
            np.savez(temporary, **arrays)
        self.partial.unlink(missing_ok=True)

    def _write(self, content: bytes) -> None:
        assert self._stream is not None, "resume comes first"
        view = memoryview(content)
        while view:
            view = view[self._stream.write(view) :]

    def _check_header(self, header: bytes) -> None:
        try:
            document = json.loads(header)
            version, key = document["version"], dict(document["key"])
        except (ValueError, KeyError, TypeError) as exc:
            raise InputError(f"{self.partial}: not a file of logits of ours", _OTHER) from exc
        if version != STORE_VERSION:
            raise InputError(f"{self.partial}: is of another version of emca-deploy", _OTHER)
        self._check(self.partial, key)

    def _check(self, path: Path, key: Mapping[str, Any]) -> None:
        names = sorted({*key, *self._key})
        other = [name for name in names if _comparable(name, key.get(name)) != _comparable(name, self._key.get(name))]
        if other:
            problem = f"{path}: has the logits of another run (differs in: {', '.join(other)})"
            raise InputError(problem, _OTHER)

    def _lock(self, stream: IO[bytes]) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise InputError(f"{self.partial}: another process is writing it", "wait for it, or name another file") from exc

    def _output_error(self, exc: OSError) -> OutputError:
        reason = exc.strerror or os.strerror(exc.errno or 0)
        remedy = "free space or write elsewhere; what was written before stays, and the same command goes on from there"
        return OutputError(f"{self.partial}: cannot be written: {reason}", remedy)


def _comparable(name: str, value: Any) -> Any:
    """Return a part of a key such that an older version's record of preprocessing compares with today's."""
    if name != "preprocessing" or not isinstance(value, dict):
        return value
    try:
        return Preprocessing.from_dict(value)
    except (KeyError, TypeError, ValueError):
        return value


def _check_shapes(
    logits: Float32Array, labels: Int64Array | None, indices: tuple[int, ...] | None, files: tuple[str, ...]
) -> None:
    if logits.ndim != 2 or (labels is not None and labels.shape != logits.shape[:1]):
        raise ValueError("its arrays do not fit together")
    if any(len(each) != len(logits) for each in (indices, files) if each):
        raise ValueError("its names do not fit its logits")


def _read_records(stream: IO[bytes]) -> tuple[list[Float32Array], int]:
    """Return the batches of the records up to the first damaged one, and where that begins."""
    parts: list[Float32Array] = []
    done, end = 0, stream.tell()
    while len(head := stream.read(_RECORD.size)) == _RECORD.size:
        start, count, width, crc = _RECORD.unpack(head)
        if start != done or not 0 < count * width * 4 <= _MOST_ROW_BYTES or (parts and width != parts[0].shape[1]):
            break
        rows = stream.read(count * width * 4)
        if len(rows) != count * width * 4 or zlib.crc32(rows) != crc:
            break
        parts.append(np.frombuffer(rows, "<f4").reshape(count, width).astype(np.float32, copy=False))
        done, end = done + count, stream.tell()
    return parts, end
