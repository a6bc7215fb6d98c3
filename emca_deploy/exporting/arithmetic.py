"""Nodes for torch's arithmetic, comparisons, casts and reductions, on tensors of any type."""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from math import log
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from emca_deploy.errors import ModelError
from emca_deploy.exporting.recording import TYPES, Recorder, Traced, Written

__all__ = ["ARITHMETIC", "cast", "common_type"]

Number = Tensor | float
LOGICAL = {"Add": "Or", "Mul": "And", "Max": "Or", "Min": "And"}
"""Operators on booleans in place of those on numbers."""


@overload
def cast(recorder: Recorder, x: Traced, dtype: torch.dtype) -> Traced: ...


@overload
def cast(recorder: Recorder, x: Number, dtype: torch.dtype) -> Number: ...


def cast(recorder: Recorder, x: Number, dtype: torch.dtype) -> Number:
    """Return a tensor, or a number as a constant, of this type; no node is written where `x` is of it already."""
    if isinstance(x, Traced):
        return x if x.dtype == dtype else recorder.node("Cast", x.shape, [x], dtype, to=TYPES[dtype].value)
    if isinstance(x, Tensor):
        return x.to(dtype)
    return x if dtype == torch.float32 else torch.tensor(x, dtype=dtype)


def common_type(*operands: Number) -> torch.dtype:
    """Return the type in which torch computes with these operands."""
    if len(operands) == 1:
        return torch.result_type(operands[0], operands[0])
    return reduce(torch.promote_types, (torch.result_type(a, b) for a, b in pairwise(operands)))


def _shape(*operands: Number) -> tuple[int, ...]:
    return np.broadcast_shapes(*(each.shape for each in operands if isinstance(each, Tensor)))


def _elementwise(op_type: str) -> Written:
    def write(recorder: Recorder, *operands: Number, alpha: int = 1, **_: Any) -> Traced:
        if alpha != 1:
            raise ModelError("the exporter cannot write a sum with alpha", "report this with the architecture")
        dtype = common_type(*operands)
        name = LOGICAL[op_type] if dtype == torch.bool else op_type
        return recorder.node(name, _shape(*operands), [cast(recorder, each, dtype) for each in operands], dtype)

    return write


def _function(op_type: str) -> Written:
    """Return a writer for a function of one float tensor."""

    def write(recorder: Recorder, x: Tensor, **_: Any) -> Traced:
        return recorder.node(op_type, x.shape, [x], x.dtype)

    return write


def _reflected(op_type: str) -> Written:
    def write(recorder: Recorder, x: Number, other: Number) -> Any:
        return ARITHMETIC[op_type](recorder, other, x)

    return write


def _mul(recorder: Recorder, x: Number, factor: Number) -> Traced:
    if isinstance(x, Traced) and isinstance(factor, (int, float)) and factor == 1 and common_type(x, factor) == x.dtype:
        return x
    return _elementwise("Mul")(recorder, x, factor)  # type: ignore[no-any-return]


def _div(recorder: Recorder, x: Number, divisor: Number, rounding_mode: str | None = None) -> Traced:
    dtype = common_type(x, divisor)
    if rounding_mode is None and not dtype.is_floating_point:
        dtype = torch.float32
    operands = [cast(recorder, each, dtype) for each in (x, divisor)]
    quotient = recorder.node("Div", _shape(x, divisor), operands, dtype)
    if rounding_mode == "floor" and dtype.is_floating_point:
        return recorder.node("Floor", quotient.shape, [quotient], dtype)
    if rounding_mode == "trunc" and dtype.is_floating_point:
        raise ModelError("the exporter cannot write a division that rounds to zero", "report this with the architecture")
    return quotient  # of integers that are not negative


def _floor_divide(recorder: Recorder, x: Number, divisor: Number) -> Traced:
    return _div(recorder, x, divisor, "floor")


def _remainder(recorder: Recorder, x: Number, divisor: Number) -> Traced:
    dtype = common_type(x, divisor)
    if dtype.is_floating_point:
        raise ModelError("the exporter cannot write a remainder of floats", "report this with the architecture")
    return recorder.node("Mod", _shape(x, divisor), [cast(recorder, each, dtype) for each in (x, divisor)], dtype, fmod=0)


def _comparison(op_type: str, negated: bool = False) -> Written:
    def write(recorder: Recorder, x: Number, other: Number) -> Traced:
        dtype = common_type(x, other)
        operands = [cast(recorder, each, dtype) for each in (x, other)]
        result = recorder.node(op_type, _shape(x, other), operands, torch.bool)
        return recorder.node("Not", result.shape, [result], torch.bool) if negated else result

    return write


def _log2(recorder: Recorder, x: Tensor) -> Traced:
    natural = recorder.node("Log", x.shape, [x], x.dtype)
    return recorder.node("Mul", x.shape, [natural, 1 / log(2)], x.dtype)


def _where(recorder: Recorder, condition: Tensor, x: Number, other: Number) -> Traced:
    dtype = common_type(x, other)
    operands = [cast(recorder, each, dtype) for each in (x, other)]
    return recorder.node("Where", _shape(condition, x, other), [condition, *operands], dtype)


def _masked_fill(recorder: Recorder, x: Tensor, mask: Tensor, value: Number) -> Traced:
    return _where(recorder, mask, value if isinstance(value, Tensor) else torch.tensor(value, dtype=x.dtype), x)


def _clamp(recorder: Recorder, x: Traced, *given: Number | None, **named: Number | None) -> Traced:
    least, most = (*given, None, None)[:2]
    least, most = named.get("min", least), named.get("max", most)
    if not isinstance(least, Tensor) and not isinstance(most, Tensor):
        limits = [None if each is None else torch.tensor(each, dtype=x.dtype) for each in (least, most)]
        return recorder.node("Clip", x.shape, [x, *limits], x.dtype)
    for op_type, limit in (("Max", least), ("Min", most)):
        x = x if limit is None else _elementwise(op_type)(recorder, x, limit)
    return x


def _to(recorder: Recorder, x: Tensor, *given: Any, dtype: torch.dtype | None = None, **_: Any) -> Number:
    for each in given:
        dtype = each if isinstance(each, torch.dtype) else each.dtype if isinstance(each, Tensor) else dtype
    return x if dtype is None else cast(recorder, x, dtype)


def _cast_to(dtype: torch.dtype) -> Written:
    return lambda recorder, x: cast(recorder, x, dtype)


def _same(_: Recorder, x: Tensor, *__: Any, **___: Any) -> Tensor:
    return x


def _axes(x: Tensor, dim: int | Sequence[int] | None) -> list[int]:
    return list(range(x.dim())) if dim is None else [dim] if isinstance(dim, int) else list(dim)


def _reduction(op_type: str) -> Written:
    def write(
        recorder: Recorder, x: Traced, dim: int | Sequence[int] | None = None, keepdim: bool = False,
        dtype: torch.dtype | None = None,
    ) -> Traced:  # fmt: skip
        axes = _axes(x, dim)
        reduced = {axis % x.dim() for axis in axes}
        shape = [1 if axis in reduced else size for axis, size in enumerate(x.shape) if keepdim or axis not in reduced]
        counted = torch.int64 if op_type == "ReduceSum" and not x.dtype.is_floating_point else x.dtype
        x = cast(recorder, x, dtype or counted)
        return recorder.node(op_type, shape, [x, axes], x.dtype, noop_with_empty_axes=0, keepdims=int(keepdim))

    return write


def _any(recorder: Recorder, x: Traced, dim: int | None = None, keepdim: bool = False) -> Traced:
    most = _reduction("ReduceMax")(recorder, cast(recorder, x, torch.float32), dim, keepdim)
    return cast(recorder, most, torch.bool)


def _softmax(recorder: Recorder, x: Tensor, dim: int, **_: Any) -> Traced:
    return recorder.node("Softmax", x.shape, [x], axis=dim % x.dim())


def _matmul(recorder: Recorder, x: Tensor, other: Tensor) -> Traced:
    shape = [*np.broadcast_shapes(x.shape[:-2], other.shape[:-2]), *([x.shape[-2]] if x.dim() > 1 else [])]
    return recorder.node("MatMul", [*shape, other.shape[-1]], [x, other])


ARITHMETIC: dict[str, Written] = {
    "add": _elementwise("Add"), "sub": _elementwise("Sub"), "mul": _mul, "div": _div, "truediv": _div,
    "rsub": _reflected("sub"), "rdiv": _reflected("div"), "rtruediv": _reflected("div"),
    "floordiv": _floor_divide, "floor_divide": _floor_divide, "remainder": _remainder, "mod": _remainder,
    "minimum": _elementwise("Min"), "maximum": _elementwise("Max"), "pow": _elementwise("Pow"),
    "relu": _function("Relu"), "sigmoid": _function("Sigmoid"), "sqrt": _function("Sqrt"), "exp": _function("Exp"),
    "log": _function("Log"), "log2": _log2, "neg": _function("Neg"), "abs": _function("Abs"), "floor": _function("Floor"),
    "ceil": _function("Ceil"), "round": _function("Round"), "tanh": _function("Tanh"),
    "gt": _comparison("Greater"), "ge": _comparison("GreaterOrEqual"), "lt": _comparison("Less"),
    "le": _comparison("LessOrEqual"), "eq": _comparison("Equal"), "ne": _comparison("Equal", negated=True),
    "and": _elementwise("Mul"), "logical_and": _elementwise("Mul"), "bitwise_and": _elementwise("Mul"),
    "or": _elementwise("Add"), "logical_or": _elementwise("Add"), "bitwise_or": _elementwise("Add"),
    "invert": _function("Not"), "logical_not": _function("Not"), "bitwise_not": _function("Not"),
    "where": _where, "masked_fill": _masked_fill, "clamp": _clamp, "clip": _clamp, "clamp_min": _clamp,
    "to": _to, "type_as": _to, "float": _cast_to(torch.float32), "long": _cast_to(torch.int64), "int": _cast_to(torch.int32),
    "bool": _cast_to(torch.bool), "contiguous": _same, "detach": _same, "clone": _same, "cpu": _same,
    "mean": _reduction("ReduceMean"), "sum": _reduction("ReduceSum"), "amax": _reduction("ReduceMax"),
    "amin": _reduction("ReduceMin"), "any": _any, "softmax": _softmax, "matmul": _matmul, "bmm": _matmul,
}  # fmt: skip
"""Functions of torch that compute with numbers, and what writes their nodes."""
