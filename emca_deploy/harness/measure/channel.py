"""Messages between the coordinator and a worker: a JSON object and named arrays.

A frame is two little-endian unsigned 64-bit lengths, the JSON, and the arrays' raw bytes. Nothing is pickled.
"""

import json
import os
import selectors
import struct
import time
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Channel"]

_LENGTHS = struct.Struct("<QQ")
_LONGEST_JSON = 1 << 26
_READ_AT_ONCE = 1 << 20


class Channel:
    """One end of a pair of pipes, which it owns and closes. A timeout also ends in the middle of a message."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._selector = selectors.DefaultSelector()
        self._selector.register(read_fd, selectors.EVENT_READ)
        self._closed = False

    def send(self, message: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        """Send a message, and wait until the pipe has taken it.

        Raises:
            BrokenPipeError: the other end is closed.
        """
        named = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
        if named:
            kinds = {name: {"dtype": array.dtype.str, "shape": list(array.shape)} for name, array in named.items()}
            message = {**message, "arrays": kinds}
        payload = b"".join(array.tobytes() for array in named.values())
        header = json.dumps(message, default=str).encode()
        left = memoryview(_LENGTHS.pack(len(header), len(payload)) + header + payload)
        while left:
            left = left[os.write(self._write_fd, left) :]

    def receive(self, timeout_s: float | None = None) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Return the next message and its arrays by name; a timeout of None waits without limit.

        Raises:
            EOFError: the other end is closed, or sent something else than a message.
            TimeoutError: no whole message came in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        header_length, payload_length = _LENGTHS.unpack(self._read(_LENGTHS.size, deadline))
        if header_length > _LONGEST_JSON:
            raise EOFError("not a message")
        header = self._read(header_length, deadline)
        payload = self._read(payload_length, deadline)
        try:
            message: dict[str, Any] = json.loads(header)
            arrays = _arrays(message.pop("arrays", {}), payload)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
            raise EOFError("not a message") from exc
        return message, arrays

    def _read(self, length: int, deadline: float | None) -> bytearray:
        taken = bytearray()
        while len(taken) < length:
            if deadline is not None:
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._selector.select(left_s):
                    raise TimeoutError
            piece = os.read(self._read_fd, min(length - len(taken), _READ_AT_ONCE))
            if not piece:
                raise EOFError("the other end is closed")
            taken += piece
        return taken

    def close(self) -> None:
        """Close both pipes, if they are open."""
        if self._closed:
            return
        self._closed = True
        self._selector.close()
        os.close(self._read_fd)
        os.close(self._write_fd)


def _arrays(kinds: Mapping[str, Any], payload: bytearray) -> dict[str, npt.NDArray[Any]]:
    found, start = {}, 0
    for name, kind in kinds.items():
        dtype, shape = np.dtype(kind["dtype"]), tuple(kind["shape"])
        count = prod(shape)
        found[name] = np.frombuffer(payload, dtype, count, start).reshape(shape) if count else np.zeros(shape, dtype)
        start += count * dtype.itemsize
    if start != len(payload):
        raise ValueError("the arrays do not fill the payload")
    return found
