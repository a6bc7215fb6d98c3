"""Tensors as they lie in a file: described without reading their values, then read one at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from emca_deploy.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["COPY_AGAIN", "ITEM_BYTES", "Storage", "StoredTensor", "TensorProblem", "describe_tensor", "span_reader"]

COPY_AGAIN = "copy or download it again, and compare sizes or checksums"

ITEM_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint16": 2, "uint32": 4, "uint64": 8,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
}  # fmt: skip
"""Bytes of one element, by torch's name of the dtype."""

MAX_DIMENSIONS = 64
MAX_ELEMENTS = 1 << 48


class TensorProblem(Exception):  # noqa: N818 -- becomes a CheckpointError where the tensor's name is known
    """Why one tensor cannot be used; the message completes "'conv1.weight' ..."."""


@dataclass
class Storage:
    """The bytes that one or more tensors are views of.

    Attributes:
        key: identifies the storage within its file.
        read: returns the bytes from the first offset to the second; None where the file does not hold them.
    """

    key: str
    nbytes: int
    read: Callable[[int, int], bytes] | None = None


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file, its values still there.

    Attributes:
        dtype: torch's name of it ("float32").
        stride: elements from one index to the next, per dimension.
        offset: elements from the storage's start to the first.
        storage: where the values are; None where `problem` says why there are none.
        problem: why it cannot be used, or "".
    """

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...] = ()
    offset: int = 0
    storage: Storage | None = None
    problem: str = ""

    @property
    def is_floating(self) -> bool:
        """Whether its elements are floating-point numbers."""
        return "float" in self.dtype

    @property
    def span(self) -> int:
        """The elements of the storage from its first element to its last, both included."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))

    def outline(self) -> "Tensor":
        """Return a tensor of this shape without values (torch's meta device), float32 where it is a floating one."""
        import torch

        dtype = torch.float32 if self.is_floating else getattr(torch, self.dtype, torch.uint8)
        return torch.empty(self.shape, dtype=dtype, device="meta")

    def load(self) -> "Tensor":
        """Return the values on the CPU, contiguous; floating ones as float32.

        Raises:
            TensorProblem: it is not an ordinary tensor, its values are not in the file, or they hold NaN or infinity.
        """
        import torch

        if self.problem or self.storage is None or self.storage.read is None:
            raise TensorProblem(self.problem or "has a shape but not its values")
        dtype: torch.dtype = getattr(torch, self.dtype)
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=torch.float32 if self.is_floating else dtype)
        size = ITEM_BYTES[self.dtype]
        content = self.storage.read(self.offset * size, (self.offset + self.span) * size)
        values = torch.frombuffer(bytearray(content), dtype=dtype).as_strided(self.shape, self.stride)
        if not self.is_floating:
            return values.contiguous()
        values = values.float().contiguous()
        if not bool(values.isfinite().all()):
            raise TensorProblem("holds NaN or infinity")
        return values


def describe_tensor(dtype: str, storage: Storage, shape: Any, stride: Any = None, offset: Any = 0) -> StoredTensor:
    """Return a tensor whose description comes from a file and is not trusted.

    Dimensions, strides and offset (in elements; no strides is contiguous) are what the file says.

    Raises:
        ValueError: these are not sizes at all.
    """
    sizes = _counts(shape)
    if math.prod(max(size, 1) for size in sizes) > MAX_ELEMENTS:
        return StoredTensor(dtype, sizes, problem="has a shape but not its values")
    steps = _counts(stride) if stride is not None else _contiguous(sizes)
    (first,) = _counts((offset,))
    if len(sizes) != len(steps):
        raise ValueError("a tensor with another number of strides than of dimensions")
    tensor = StoredTensor(dtype, sizes, steps, first, storage)
    if dtype not in ITEM_BYTES:
        return StoredTensor(dtype, sizes, problem=f"is not an ordinary tensor ({dtype})")
    if storage.read is None:
        return StoredTensor(dtype, sizes, problem="has a shape but not its values: the file does not hold them")
    if tensor.span and (first + tensor.span) * ITEM_BYTES[dtype] > storage.nbytes:
        return StoredTensor(dtype, sizes, problem="reaches beyond the values that the file holds for it")
    return tensor


def span_reader(path: Path, stream: BinaryIO, place: int) -> Callable[[int, int], bytes]:
    """Return a function that reads bytes of `stream` between two offsets counted from `place`."""

    def read(start: int, stop: int) -> bytes:
        try:
            stream.seek(place + start)
            content = stream.read(stop - start)
        except OSError as exc:
            raise CheckpointError(f"{path}: cannot be read: {exc.strerror}", "check the disk that it lies on") from exc
        if len(content) != stop - start:
            raise CheckpointError(f"{path}: is truncated: it became shorter while it was read", COPY_AGAIN)
        return content

    return read


def _contiguous(sizes: tuple[int, ...]) -> tuple[int, ...]:
    steps, step = [], 1
    for size in reversed(sizes):
        steps.append(step)
        step *= max(size, 1)
    return tuple(reversed(steps))


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > MAX_DIMENSIONS:
        raise ValueError("a tensor whose sizes are not a list of numbers")
    if not all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ELEMENTS for value in values):
        raise ValueError("a tensor with a size that no tensor can have")
    return tuple(values)
