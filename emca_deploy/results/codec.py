"""Converts records to JSON and back by their type hints: one codec for every document that this package writes and reads.

A record is a frozen dataclass. Its fields are the keys of an object, in order; tuples are lists, paths are strings.

- Absent: a missing key takes the field's default; a field without a default is required. A field made with `left_out` is not
  written while it has its default value.
- Version: a record with a field made with `version` is read in that version and in each older one that has an upgrade step.
- Checked: every value has the declared type, floats are finite, integers fit 64 bits, and no key is unknown. A record may have a
  method `contradiction() -> str` that returns why its values cannot be true, or "", and may raise ValueError when it is made.
- Older: a static method `older(values)` of a record converts earlier documents of the same version to the current form.
- A record with a method `to_dict` converts itself.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from emca_deploy.errors import DataError, InputError

__all__ = ["from_json", "left_out", "misfit", "read_json", "to_json", "version"]

LARGEST = 2**63
"""Integers of this size and more fit no array, and may be too long to print."""

_LEFT_OUT, _UPGRADES = "left out", "upgrades"
_NAMES = {str: "text", int: "an integer", float: "a finite number", bool: "true or false", NoneType: "null", Path: "a path"}

Record = TypeVar("Record")
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
_Reader = Callable[[Any], Any]


def left_out(default: Any = None) -> Any:
    """Declare a field that is not written while it has its default value. A function such as `dict` makes the default."""
    metadata = {_LEFT_OUT: True}
    return field(default_factory=default, metadata=metadata) if callable(default) else field(default=default, metadata=metadata)


def version(written: int, upgrades: Mapping[int, Upgrade] | None = None) -> Any:
    """Declare the field with a document's version. `upgrades` converts the values of each older version to the next one."""
    return field(default=written, metadata={_UPGRADES: dict(upgrades or {})})


def to_json(record: Any) -> dict[str, Any]:
    """Return the JSON document of a record."""
    document: dict[str, Any] = _plain(record)
    return document


def from_json(record: type[Record], value: Any, source: str = "", remedy: str = "make it again with this emca-deploy") -> Record:
    """Return the record of a JSON document. The error's message begins with `source`.

    Raises:
        DataError: the document is of another version, or a value is missing, unknown or of another type.
    """
    wrong, found = _read(value, record)
    if wrong:
        raise DataError(": ".join(filter(None, (source, wrong))), remedy)
    result: Record = found
    return result


def read_json(record: type[Record], path: Path, what: str, remedy: str) -> Record:
    """Return the record in a JSON file. `what`, such as "a profile", names the document in messages.

    Raises:
        DataError: the file is not such a document; see `from_json`.
        InputError: the file cannot be read.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}", remedy) from exc
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{path}: not {what} of emca-deploy: {exc}", remedy) from exc
    return from_json(record, value, f"{path}: not {what} of emca-deploy, or damaged", remedy)


def misfit(value: Any, wanted: Any) -> str:
    """Return why a JSON value does not have a type, or ""."""
    return _read(value, wanted)[0]


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    if is_dataclass(value):
        given = ((f, getattr(value, f.name)) for f in fields(value))
        return {f.name: _plain(each) for f, each in given if not (f.metadata.get(_LEFT_OUT) and each == _default(f))}
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _default(declared: "Field[Any]") -> Any:
    return declared.default if declared.default_factory is MISSING else declared.default_factory()


class _WrongError(Exception):
    """A value does not fit; every container around it adds itself to the path."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.path: list[str] = []


def _read(value: Any, wanted: Any) -> tuple[str, Any]:
    """Return why the value does not fit, or "", and the value read."""
    try:
        return "", _reader(wanted)(value)
    except _WrongError as exc:
        path = "".join(reversed(exc.path)).lstrip(".")
        return f"{path}: {exc}" if path else str(exc), None
    except RecursionError:
        return "it is nested too deeply", None


@cache
def _reader(wanted: Any) -> _Reader:
    """Return the function that reads a value of a type, made once for each type."""
    if wanted is Any:
        return lambda value: value
    if is_dataclass(wanted):
        return _record_reader(wanted)
    kind, arguments = get_origin(wanted) or wanted, get_args(wanted)
    if kind in (Union, UnionType):
        return _union_reader(arguments)
    if kind is Literal:
        return _choice_reader(arguments)
    if kind in (tuple, list, Sequence):
        return _list_reader(kind, arguments)
    return _dict_reader(arguments[1] if arguments else Any) if kind in (dict, Mapping) else _scalar_reader(wanted)


def _record_reader(record: Any) -> _Reader:
    hints = get_type_hints(record)
    declared = {f.name: f for f in fields(record)}
    versioned = next((f for f in declared.values() if _UPGRADES in f.metadata), None)
    older = getattr(record, "older", None)
    required = [f.name for f in declared.values() if f.default is MISSING and f.default_factory is MISSING]

    def read(value: Any) -> Any:
        values = _object(value)
        if versioned is not None:
            values = _upgraded(values, versioned)
        if older is not None:
            values = _converted(older, values)
        if missing := [name for name in required if name not in values]:
            raise _WrongError(f"'{missing[0]}' is missing")
        if unknown := [name for name in values if name not in declared]:
            raise _WrongError(f"{_shown(unknown[0])} is not a field of it")
        converted = {name: _at(f".{name}", _reader(hints[name]), each) for name, each in values.items()}
        try:
            found = record(**converted)
        except ValueError as exc:
            raise _WrongError(str(exc)) from exc
        if wrong := found.contradiction() if hasattr(found, "contradiction") else "":
            raise _WrongError(wrong)
        return found

    return read


def _upgraded(values: dict[str, Any], versioned: "Field[Any]") -> dict[str, Any]:
    upgrades, name = versioned.metadata[_UPGRADES], versioned.name
    now: int = _default(versioned)
    given = values.get(name)
    oldest = min(upgrades, default=now)
    if type(given) is not int or not oldest <= given <= now:
        reads = f"{oldest} to {now}" if oldest < now else str(now)
        raise _WrongError(f"{name.replace('_', ' ')} {_shown(given)}; this emca-deploy reads {reads}")
    for step in range(given, now):
        values = _converted(upgrades[step], values)
    return {**values, name: now}


def _converted(convert: Upgrade, values: dict[str, Any]) -> dict[str, Any]:
    try:
        return convert(values)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise _WrongError(f"it is damaged: {exc}") from exc


def _union_reader(choices: tuple[Any, ...]) -> _Reader:
    readers = [_reader(choice) for choice in choices if choice is not NoneType]
    optional = NoneType in choices

    def read(value: Any) -> Any:
        if value is None and optional:
            return None
        wrong = []
        for reader in readers:
            try:
                return reader(value)
            except _WrongError as exc:
                wrong.append(exc)
        raise wrong[0]

    return read


def _choice_reader(choices: tuple[Any, ...]) -> _Reader:
    def read(value: Any) -> Any:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise _WrongError(f"{_shown(value)} is not one of {', '.join(map(str, choices))}")
        return value

    return read


def _list_reader(kind: Any, arguments: tuple[Any, ...]) -> _Reader:
    any_length = kind is not tuple or not arguments or arguments[-1] is Ellipsis
    readers = [_reader(each) for each in arguments if each is not Ellipsis] or [_reader(Any)]

    def read(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise _WrongError("is not a list")
        if not any_length and len(value) != len(readers):
            raise _WrongError(f"has {len(value)} values, not {len(readers)}")
        used = readers * len(value) if any_length else readers
        found = (_at(f"[{index}]", reader, each) for index, (reader, each) in enumerate(zip(used, value, strict=True)))
        return list(found) if kind is list else tuple(found)

    return read


def _dict_reader(kind: Any) -> _Reader:
    reader = _reader(kind)
    return lambda value: {name: _at(f".{name}", reader, each) for name, each in _object(value).items()}


def _scalar_reader(wanted: Any) -> _Reader:
    def read(value: Any) -> Any:
        if not _fits(value, wanted):
            raise _WrongError(f"{_shown(value)} is not {_NAMES.get(wanted, wanted)}")
        return Path(value) if wanted is Path else value

    return read


def _fits(value: Any, wanted: Any) -> bool:
    if wanted in (int, float) and isinstance(value, int):
        return not isinstance(value, bool) and -LARGEST < value < LARGEST
    if wanted is float:
        return isinstance(value, float) and isfinite(value)
    return isinstance(value, str if wanted is Path else wanted)


def _at(step: str, reader: _Reader, value: Any) -> Any:
    try:
        return reader(value)
    except _WrongError as exc:
        exc.path.append(step)
        raise


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _WrongError("is not an object")
    return dict(value)


def _shown(value: Any) -> str:
    if isinstance(value, int) and not -LARGEST < value < LARGEST:
        return "a number that is too large"
    return str(value) if isinstance(value, (int, float)) else repr(str(value)[:40])
