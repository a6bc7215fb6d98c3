"""Tensors of a file, described without reading their values and then read one at a time."""

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
"""Bytes per element by torch's name of the dtype."""

MAX_DIMENSIONS = 64
MAX_ELEMENTS = 1 << 48


class TensorProblem(Exception):  # noqa: N818 -- becomes a CheckpointError where the tensor's name is known
    """A tensor cannot be used; the message completes a sentence that begins with the tensor's name."""


@dataclass
class Storage:
    """The bytes that one or more tensors are views of.

    Attributes:
        key: Name of the storage, unique in its file.
        read: Function that returns the bytes from one offset up to another; None where the file does not have them.
    """

    key: str
    nbytes: int
    read: Callable[[int, int], bytes] | None = None


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file whose values are not read.

    Attributes:
        dtype: Type by torch's name ("float32").
        stride: Number of elements from one index to the next, per dimension.
        offset: Number of elements from the storage's start to the first.
        storage: Bytes of the values; None where `problem` says why there are none.
        problem: Reason why the tensor cannot be used, or "".
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
        """The number of the storage's elements from its first to its last one."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))

    def outline(self) -> "Tensor":
        """Return a tensor of this shape without values, on torch's meta device; all floating-point types as float32."""
        import torch

        dtype = torch.float32 if self.is_floating else getattr(torch, self.dtype, torch.uint8)
        return torch.empty(self.shape, dtype=dtype, device="meta")

    def load(self) -> "Tensor":
        """Return the values on the CPU, contiguous; all floating-point types as float32.

        Raises:
            TensorProblem: it is not an ordinary tensor, its values are not in the file, or one is NaN or infinite.
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
        # A sum is finite where all values are and it does not overflow; it takes a tenth of the time.
        if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
            raise TensorProblem("holds NaN or infinity")
        return values


def describe_tensor(dtype: str, storage: Storage, shape: Any, stride: Any = None, offset: Any = 0) -> StoredTensor:
    """Return a tensor whose shape, stride and offset (in elements) come from a file and are not trusted.

    Without a stride it is contiguous. A tensor that cannot be used has its `problem`.

    Raises:
        ValueError: shape, stride or offset are not sizes.
    """
    sizes = _counts(shape)
    if math.prod(max(size, 1) for size in sizes) > MAX_ELEMENTS:
        return StoredTensor(dtype, sizes, problem="has a shape but not its values")
    dense = tuple(math.prod(max(size, 1) for size in sizes[place + 1 :]) for place in range(len(sizes)))
    steps = _counts(stride) if stride is not None else dense
    (first,) = _counts((offset,))
    if len(sizes) != len(steps):
        raise ValueError(f"a tensor has {len(steps)} strides for {len(sizes)} dimensions")
    tensor = StoredTensor(dtype, sizes, steps, first, storage)
    if dtype not in ITEM_BYTES:
        return StoredTensor(dtype, sizes, problem=f"is not an ordinary tensor ({dtype})")
    if storage.read is None:
        return StoredTensor(dtype, sizes, problem="has a shape but not its values: the file does not have them")
    if tensor.span and (first + tensor.span) * ITEM_BYTES[dtype] > storage.nbytes:
        return StoredTensor(dtype, sizes, problem="reaches beyond its values in the file")
    return tensor


def span_reader(path: Path, stream: BinaryIO, place: int) -> Callable[[int, int], bytes]:
    """Return a function that reads the bytes of `stream` between two offsets from `place`."""

    def read(start: int, stop: int) -> bytes:
        try:
            stream.seek(place + start)
            content = stream.read(stop - start)
        except OSError as exc:
            raise CheckpointError(f"{path}: cannot be read: {exc.strerror}", "check the disk that it is on") from exc
        if len(content) != stop - start:
            raise CheckpointError(f"{path}: is truncated: it became shorter during reading", COPY_AGAIN)
        return content

    return read


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > MAX_DIMENSIONS:
        raise ValueError("the sizes of a tensor are not a list of numbers")
    if not all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ELEMENTS for value in values):
        raise ValueError("a tensor has an impossible size")
    return tuple(values)
