"""Are the values of a record that was read from a file those that its type declares?"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["fitting", "misfit"]

LARGEST = 2**63
"""Of an integer: larger ones neither fit into an array nor are written in decimals without limit."""


Record = TypeVar("Record")


def fitting(record: Record) -> Record:
    """Return a record whose values are what its type declares.

    Raises:
        ValueError: one of them is not.
    """
    wrong = misfit(record, type(record))
    if wrong:
        raise ValueError(wrong)
    return record


def misfit(value: Any, wanted: Any, where: str = "") -> str:
    """Return which value is not of the type its record declares, or "" where all are.

    Args:
        value: a record (a dataclass), or a value in one.
        wanted: the type that it must have; JSON's lists may stand for tuples.
        where: the value's name, for the answer.
    """
    origin, arguments = get_origin(wanted), get_args(wanted)
    if is_dataclass(wanted) and isinstance(wanted, type):
        if not isinstance(value, wanted):
            return f"{where}: is not a record"
        hints = get_type_hints(wanted)
        inner = ((getattr(value, f.name), hints[f.name], f"{where}.{f.name}".strip(".")) for f in fields(wanted))
        return next((wrong for part in inner if (wrong := misfit(*part))), "")
    if origin in (Union, UnionType):
        return "" if any(not misfit(value, choice, where) for choice in arguments) else misfit(value, arguments[0], where)
    if origin is tuple:
        return _misfit_tuple(value, arguments, where)
    if origin is dict and isinstance(value, Mapping):
        kind = arguments[1] if arguments else Any
        return next((wrong for key, each in value.items() if (wrong := misfit(each, kind, f"{where}.{key}"))), "")
    return "" if _fits(value, wanted, origin, arguments) else f"{where}: {_shown(value)} is not what belongs there"


def _misfit_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> str:
    if not isinstance(value, (list, tuple)):
        return f"{where}: is not a list"
    if arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    if len(value) != len(arguments):
        return f"{where}: has {len(value)} values, not {len(arguments)}"
    parts = ((item, kind, f"{where}[{index}]") for index, (item, kind) in enumerate(zip(value, arguments, strict=True)))
    return next((wrong for part in parts if (wrong := misfit(*part))), "")


def _shown(value: Any) -> str:
    return "a number that is too large" if isinstance(value, int) and not -LARGEST < value < LARGEST else repr(str(value)[:40])


def _fits(value: Any, wanted: Any, origin: Any, arguments: tuple[Any, ...]) -> bool:
    if wanted is Any or origin is Literal:
        return wanted is Any or value in arguments
    if isinstance(value, bool) and wanted in (int, float):
        return False
    if isinstance(value, int) and wanted in (int, float):
        return -LARGEST < value < LARGEST
    if wanted is float:
        return isinstance(value, float) and isfinite(value)
    return isinstance(value, origin or wanted)
