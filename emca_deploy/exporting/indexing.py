"""Nodes for torch's functions that move values: shapes, slices, gathering, sorting and joining."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from emca_deploy.errors import ModelError
from emca_deploy.exporting.arithmetic import cast, common_type
from emca_deploy.exporting.recording import DYNAMIC_SIZE, Recorder, Traced, Written

__all__ = ["INDEXING"]

TO_THE_END = 2**31 - 1


class _Sorted(NamedTuple):
    """Values and their places, as torch.topk returns them."""

    values: Traced
    indices: Traced


def _shaped(recorder: Recorder, x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return `x` with another shape."""
    if tuple(shape) == tuple(x.shape):
        return x
    return recorder.node("Reshape", shape, [x, _settled(recorder, shape)], x.dtype, allowzero=1)


def _settled(recorder: Recorder, shape: Sequence[int]) -> list[int]:
    """Return a shape whose batch is taken from the tensor where it is dynamic."""
    dynamic = recorder.batch is None and len(shape) > 0 and shape[0] == DYNAMIC_SIZE
    return [-1, *shape[1:]] if dynamic else list(shape)


def _reshape(recorder: Recorder, x: Tensor, *given: Any) -> Traced:
    shape = list(given[0] if isinstance(given[0], Sequence) else given)
    known = -int(np.prod(shape))
    full = [x.numel() // known if n < 0 else n for n in shape]
    return recorder.node("Reshape", full, [x, shape], x.dtype, allowzero=1)


def _flatten(recorder: Recorder, x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Traced:
    first, last = start_dim % x.dim(), end_dim % x.dim()
    shape = [*x.shape[:first], x.shape[first : last + 1].numel(), *x.shape[last + 1 :]]
    return recorder.node("Reshape", shape, [x, _settled(recorder, shape)], x.dtype, allowzero=1)


def _unsqueeze(recorder: Recorder, x: Tensor, dim: int) -> Tensor:
    axis = dim % (x.dim() + 1)
    return _shaped(recorder, x, [*x.shape[:axis], 1, *x.shape[axis:]])


def _squeeze(recorder: Recorder, x: Tensor, dim: int | None = None) -> Tensor:
    dropped = range(x.dim()) if dim is None else [dim % x.dim()]
    return _shaped(recorder, x, [size for axis, size in enumerate(x.shape) if axis not in dropped or size != 1])


def _permute(recorder: Recorder, x: Tensor, *dims: Any) -> Tensor:
    order = [axis % x.dim() for axis in (dims[0] if isinstance(dims[0], Sequence) else dims)]
    if order == sorted(order):
        return x
    return recorder.node("Transpose", [x.shape[axis] for axis in order], [x], x.dtype, perm=order)


def _transpose(recorder: Recorder, x: Tensor, first: int = -2, second: int = -1) -> Tensor:
    order = list(range(x.dim()))
    order[first], order[second] = order[second], order[first]
    return _permute(recorder, x, order)


def _expand(recorder: Recorder, x: Tensor, *given: Any) -> Tensor:
    sizes = list(given[0] if isinstance(given[0], Sequence) else given)
    known = [1] * (len(sizes) - x.dim()) + list(x.shape)
    shape = [old if new == -1 else new for new, old in zip(sizes, known, strict=True)]
    return x if shape == list(x.shape) else recorder.node("Expand", shape, [x, shape], x.dtype)


def _expand_as(recorder: Recorder, x: Tensor, other: Tensor) -> Tensor:
    return _expand(recorder, x, list(other.shape))


def _cat(recorder: Recorder, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    axis, dtype = dim % tensors[0].dim(), common_type(*tensors)
    shape = list(tensors[0].shape)
    shape[axis] = sum(each.shape[axis] for each in tensors)
    return recorder.node("Concat", shape, [cast(recorder, each, dtype) for each in tensors], dtype, axis=axis)


def _stack(recorder: Recorder, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    axis = dim % (tensors[0].dim() + 1)
    return _cat(recorder, [_unsqueezed(recorder, each, axis) for each in tensors], axis)


def _unsqueezed(recorder: Recorder, x: Tensor, axis: int) -> Tensor:
    return _unsqueeze(recorder, x, axis) if isinstance(x, Traced) else x.unsqueeze(axis)


def _sliced(recorder: Recorder, x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    size = len(range(start, stop, step))
    if size == x.shape[axis]:
        return x
    shape = [*x.shape[:axis], size, *x.shape[axis + 1 :]]
    return recorder.node("Slice", shape, [x, [start], [stop], [axis], [step]], x.dtype)


def _split(recorder: Recorder, x: Tensor, sizes: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    axis = dim % x.dim()
    total = x.shape[axis]
    parts = [min(sizes, total - start) for start in range(0, total, sizes)] if isinstance(sizes, int) else list(sizes)
    starts = [sum(parts[:index]) for index in range(len(parts))]
    return tuple(_sliced(recorder, x, axis, start, start + size) for start, size in zip(starts, parts, strict=True))


def _chunk(recorder: Recorder, x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    return _split(recorder, x, -(-x.shape[dim] // chunks), dim)


def _unbind(recorder: Recorder, x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    return tuple(_squeeze(recorder, each, dim) for each in _split(recorder, x, 1, dim))


def _iterate(recorder: Recorder, x: Tensor) -> Iterator[Tensor]:
    return iter(_unbind(recorder, x))


def _getitem(recorder: Recorder, x: Tensor, index: Any) -> Tensor:
    """Write numbers, slices, None and the ellipsis, and one tensor of places along one axis."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(part is Ellipsis for part in parts):
        place = next(at for at, part in enumerate(parts) if part is Ellipsis)
        used = sum(part is not None for part in parts) - 1
        parts[place : place + 1] = [slice(None)] * (x.dim() - used)
    shape: list[int] = []
    axis = 0
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        if isinstance(part, slice):
            x = _sliced(recorder, x, axis, *part.indices(x.shape[axis]))
            shape.append(x.shape[axis])
        elif isinstance(part, int):
            start = part % x.shape[axis]
            x = _sliced(recorder, x, axis, start, start + 1)
        elif isinstance(part, (Tensor, list)) and sum(isinstance(other, (Tensor, list)) for other in parts) == 1:
            places = part if isinstance(part, Tensor) else torch.tensor(part)
            x = _index_select(recorder, x, axis, places)
            shape.extend(places.shape)
            axis += places.dim() - 1
        else:
            raise ModelError("the exporter cannot write this index of a tensor", "report this with the architecture")
        axis += 1
    return _shaped(recorder, x, [*shape, *x.shape[axis:]])


def _index_select(recorder: Recorder, x: Tensor, dim: int, index: Tensor) -> Tensor:
    if index.dtype not in {torch.int64, torch.int32}:
        raise ModelError("the exporter cannot write an index of booleans", "report this with the architecture")
    axis = dim % x.dim()
    return recorder.node("Gather", [*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]], [x, index], x.dtype, axis=axis)


def _gather(recorder: Recorder, x: Tensor, dim: int, index: Tensor) -> Traced:
    return recorder.node("GatherElements", index.shape, [x, index], x.dtype, axis=dim % x.dim())


def _topk(recorder: Recorder, x: Tensor, k: int, dim: int = -1, largest: bool = True, **_: Any) -> _Sorted:
    axis = dim % x.dim()
    shape = [*x.shape[:axis], k, *x.shape[axis + 1 :]]
    attributes = {"axis": axis, "largest": int(largest), "sorted": 1}
    return _Sorted(*recorder.write("TopK", [(shape, x.dtype), (shape, torch.int64)], [x, [k]], attributes))


def _sort(recorder: Recorder, x: Tensor, dim: int = -1, descending: bool = False, **_: Any) -> _Sorted:
    return _topk(recorder, x, x.shape[dim], dim, largest=descending)


def _argmax(recorder: Recorder, x: Tensor, dim: int, keepdim: bool = False) -> Traced:
    axis = dim % x.dim()
    shape = [1 if at == axis else size for at, size in enumerate(x.shape) if keepdim or at != axis]
    return recorder.node("ArgMax", shape, [x], torch.int64, axis=axis, keepdims=int(keepdim), select_last_index=0)


def _max(recorder: Recorder, x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, Tensor):
        return recorder.written["maximum"](recorder, x, dim)
    largest = recorder.written["amax"](recorder, x, dim, keepdim)
    return largest if dim is None else _Sorted(largest, _argmax(recorder, x, dim, keepdim))


def _triangle(upper: int) -> Written:
    def write(recorder: Recorder, x: Tensor, diagonal: int = 0) -> Traced:
        return recorder.node("Trilu", x.shape, [x, torch.tensor(diagonal)], x.dtype, upper=upper)

    return write


def _repeat(recorder: Recorder, x: Tensor, *given: Any) -> Traced:
    counts = list(given[0] if isinstance(given[0], Sequence) else given)
    known = [1] * (len(counts) - x.dim()) + list(x.shape)
    shape = [count * size for count, size in zip(counts, known, strict=True)]
    return recorder.node("Tile", shape, [_shaped(recorder, x, known), counts], x.dtype)


def _filled(value: float) -> Written:
    def write(_: Recorder, x: Tensor, *given: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
        sizes = given[0] if given and isinstance(given[0], Sequence) else given or x.shape
        return torch.full(tuple(sizes), value, dtype=dtype or x.dtype)

    return write


def _full(_: Recorder, x: Tensor, *given: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    sizes, value = given if len(given) == 2 else (x.shape, given[0])
    return torch.full(tuple(sizes), value, dtype=dtype or x.dtype)


def _new_tensor(_: Recorder, x: Tensor, data: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    return torch.tensor(data, dtype=dtype or x.dtype)


INDEXING: dict[str, Written] = {
    "reshape": _reshape, "view": _reshape, "flatten": _flatten, "unsqueeze": _unsqueeze, "squeeze": _squeeze,
    "permute": _permute, "transpose": _transpose, "swapaxes": _transpose, "t": _transpose, "T": _transpose, "mT": _transpose,
    "expand": _expand, "expand_as": _expand_as, "broadcast_to": _expand, "cat": _cat, "concat": _cat, "stack": _stack,
    "split": _split, "chunk": _chunk, "unbind": _unbind, "iter": _iterate, "getitem": _getitem, "index_select": _index_select,
    "gather": _gather, "topk": _topk, "sort": _sort, "argmax": _argmax, "max": _max, "triu": _triangle(1),
    "tril": _triangle(0), "repeat": _repeat, "tile": _repeat, "new_zeros": _filled(0), "zeros_like": _filled(0),
    "new_ones": _filled(1), "ones_like": _filled(1), "new_full": _full, "full_like": _full, "new_tensor": _new_tensor,
}  # fmt: skip
"""Functions of torch that move values or make constants, and what writes their nodes."""
