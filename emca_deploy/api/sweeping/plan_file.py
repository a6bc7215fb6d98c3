"""Reads the TOML file of a sweep: every key and every type is checked before anything else happens."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emca_deploy._text import parse_duration
from emca_deploy.errors import InputError, UnknownNameError
from emca_deploy.preprocessing import parse_size

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["MATRIX", "PRECISIONS", "Measure", "PlanFile", "read_plan_file"]

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_SCENARIOS = ("single-stream", "offline")
_RECOVERIES = ("none", "bias", "weights")
_ORDERS = ("number", "string", "index")


@dataclass(frozen=True)
class Measure:
    """The table [measure]: options of `profile`, by their names on the command line.

    Attributes:
        duration: Seconds to measure each cell.
        max_duration: Most seconds to measure each cell; None is `duration`.
        warmup: Most seconds to warm up each cell.
        processes: Processes of each cell.
        seed: Random seed of the input, and of the order of cells.
        telemetry: Whether to sample clocks, temperatures, power and memory.
    """

    duration: float = 2.0
    max_duration: float | None = None
    warmup: float = 2.0
    processes: int = 1
    seed: int = 0
    telemetry: bool = True


@dataclass(frozen=True)
class PlanFile:
    """A plan as it is written; paths are relative to the folder of the plan.

    Attributes:
        matrix: Values by key of the matrix.
        include: Further matrices; keys that one leaves out have the values of `matrix`.
        exclude: Values that a cell must not have together.
        options: Other keys with their values.
        preprocessing: Values of the table [preprocessing].
    """

    path: Path
    text: str
    matrix: Mapping[str, tuple[Any, ...]]
    include: tuple[Mapping[str, tuple[Any, ...]], ...] = ()
    exclude: tuple[Mapping[str, tuple[Any, ...]], ...] = ()
    measure: Measure = field(default_factory=Measure)
    options: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    def place(self, name: str) -> Path:
        """Return a path of the plan."""
        return self.path.parent / name


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> int | None:
    return value if _is_int(value) and 1 <= value < 2**31 else None


def _integer(value: Any) -> int | None:
    return value if _is_int(value) and abs(value) < 2**31 else None


def _size(value: Any) -> str | None:
    size = parse_size(str(value)) if _is_int(value) or isinstance(value, str) else None
    return None if size is None else str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def _samples(value: Any) -> int | str | None:
    return "auto" if value == "auto" else _number(value)


def _duration(value: Any) -> float | None:
    seconds = parse_duration(value if isinstance(value, str) else repr(value)) if not isinstance(value, bool) else None
    return seconds if seconds is not None and seconds >= 0 else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _value(value: Any) -> Any:
    """Return a text, a number, or a list of numbers as a tuple."""
    numbers = value if isinstance(value, list) else [value]
    if isinstance(value, str) or (numbers and all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers)):
        return tuple(value) if isinstance(value, list) else value
    return None


@dataclass(frozen=True)
class _Kind:
    """A kind of value: what it is called in an error, and the function that reads it, which returns None for another kind."""

    title: str
    read: Callable[[Any], Any]
    choices: tuple[str, ...] = ()


def _choice(*names: str) -> _Kind:
    return _Kind(f"one of {', '.join(names)}", lambda value: value if value in names else None, names)


_TEXT, _COUNT = _Kind("a text", _text), _Kind("a number from 1", _number)
MATRIX = {
    "models": _TEXT,
    "image_size": _Kind("a number of pixels, or HEIGHTxWIDTH", _size),
    "precision": _choice(*PRECISIONS),
    "backends": _TEXT,
    "targets": _TEXT,
    "scenario": _choice(*_SCENARIOS),
    "batch": _COUNT,
    "threads": _COUNT,
}
"""The keys of the matrix."""

_OPTIONS = {
    "data": _TEXT,
    "val": _TEXT,
    "annotations": _TEXT,
    "limit": _COUNT,
    "samples": _Kind('"auto" or a number from 1', _samples),
    "recover": _choice(*_RECOVERIES),
    "arch": _TEXT,
    "num_classes": _COUNT,
    "weights": _choice("ema", "plain"),
    "prefix": _TEXT,
    "labels": _TEXT,
    "class_map": _TEXT,
    "label_offset": _Kind("a whole number", _integer),
    "class_order": _choice(*_ORDERS),
}
_SPAN = _Kind('a duration such as 2.0, "90s" or "20m"', _duration)
_MEASURE = {
    "duration": _SPAN,
    "max_duration": _SPAN,
    "warmup": _SPAN,
    "processes": _COUNT,
    "seed": _Kind("a whole number", _integer),
    "telemetry": _Kind("true or false", _flag),
}
_VALUE = _Kind("a text, a number or a list of numbers", _value)
_PREPROCESSING = dict.fromkeys(
    ("resize_size", "crop_pct", "mean", "std", "resize", "interpolation", "pad", "pad_value", "channels", "scale", "exif"), _VALUE
)
_TABLES = ("measure", "preprocessing", "include", "exclude")


def read_plan_file(path: Path) -> PlanFile:
    """Return the plan in a file.

    Raises:
        InputError: the file cannot be read, is not TOML, or a value is of another kind.
        UnknownNameError: a key or a value has an unknown name.
    """
    text, tables = _load(path)
    top = {name: value for name, value in tables.items() if name not in _TABLES}
    known = {**MATRIX, **_OPTIONS}
    _refuse_unknown(f"{path}", top, (*known, *_TABLES))
    if "models" not in top:
        raise InputError(f"{path}: has no models", 'name checkpoints, architectures or ONNX files: models = ["model.onnx"]')
    measure = Measure(**_values(f"{path}, [measure]", tables.get("measure", {}), _MEASURE))
    if measure.duration < 0.1:
        raise InputError(f"{path}, [measure]: duration {measure.duration:g} s is too short", "give 0.1 or more")
    return PlanFile(
        path,
        text,
        _lists(f"{path}", {name: value for name, value in top.items() if name in MATRIX}),
        _further(path, "include", tables.get("include", [])),
        _further(path, "exclude", tables.get("exclude", [])),
        measure,
        _values(f"{path}", {name: value for name, value in top.items() if name in _OPTIONS}, _OPTIONS),
        _values(f"{path}, [preprocessing]", tables.get("preprocessing", {}), _PREPROCESSING),
    )


def _load(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return text, tomllib.loads(text)
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text", "save it as UTF-8") from exc
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}", "name the TOML file of a plan") from exc
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{path}: not TOML: {exc or 'nested too deep'}", "fix that line") from exc


def _further(path: Path, name: str, tables: Any) -> tuple[Mapping[str, tuple[Any, ...]], ...]:
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) and table for table in tables):
        raise InputError(f"{path}: [[{name}]] is not a list of tables with keys", f"begin each one with [[{name}]]")
    found = []
    for index, table in enumerate(tables, 1):
        where = f"{path}, [[{name}]] {index}"
        _refuse_unknown(where, table, MATRIX)
        found.append(_lists(where, table))
    return tuple(found)


def _lists(where: str, table: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the values of keys of the matrix; one that is not a list is a list of one value."""
    found = {}
    for name, value in table.items():
        values = value if isinstance(value, list) else [value]
        if not values:
            raise InputError(f"{where}: {name} is an empty list", "give a value, or leave it out")
        found[name] = tuple(dict.fromkeys(_read(where, name, each, MATRIX[name]) for each in values))
    return found


def _values(where: str, table: Any, kinds: Mapping[str, _Kind]) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise InputError(f"{where}: is not a table", "write its keys in lines below its name")
    _refuse_unknown(where, table, kinds)
    return {name: _read(where, name, value, kinds[name]) for name, value in table.items()}


def _read(where: str, name: str, value: Any, kind: _Kind) -> Any:
    found = kind.read(value)
    if found is None and kind.choices and isinstance(value, str):
        raise UnknownNameError.of(f"{name} ({where})", value, kind.choices, kind.title)
    if found is None:
        raise InputError(f"{where}: {name} = {str(value)[:60]!r} is not {kind.title}", f"give {name} as {kind.title}")
    return found


def _refuse_unknown(where: str, table: Mapping[str, Any], known: Any) -> None:
    for name in table:
        if name not in known:
            raise UnknownNameError.of(f"key of a plan ({where})", name, known, f"keys: {', '.join(known)}")
