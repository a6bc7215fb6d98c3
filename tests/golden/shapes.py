"""The pinned properties of a command line and a JSON document: names, types, defaults and keys; no wording, no measured value."""

from enum import Enum
from pathlib import Path
from typing import Any

import click

MACHINE = {
    "environment",
    "telemetry",
    "cpu",
    "backends",
    "machine",
    "interference",
    "traps",
    "gpus",
    "governors",
    "warnings",
    "notes",
    "outliers",
    "p90_upper95",
    "p95_upper95",
    "p99_upper95",
    "p99_9_upper95",
    "p99_upper95_ms",
}
"""Keys below which nulls and list lengths depend on the machine: only the keys of objects are pinned."""

BY_NAME = {"instruction_sets", "versions", "fingerprint_parts", "state", "state_after"}
"""Keys of objects below these whose own keys depend on the machine."""


MANY = 40
"""Number of keys above which an object is a table by tensor names."""


def shape_of(value: Any, key: str = "", by_machine: bool = False) -> Any:
    """Return the shape of a JSON value: objects by key, a list as the common shape of its elements, scalars by type."""
    by_machine = by_machine or key in MACHINE
    if by_machine and (key in BY_NAME or not isinstance(value, dict)):
        return "any"
    if isinstance(value, dict) and len(value) > MANY:
        return {"every name": united([shape_of(item, "", by_machine) for item in value.values()])}
    if isinstance(value, dict):
        return {name: shape_of(item, name, by_machine) for name, item in value.items()}
    if isinstance(value, list):
        return [united([shape_of(item) for item in value])] if value else []
    if value is None:
        return "null"
    version = isinstance(value, int) and key.endswith("version")
    return f"version {value}" if version else type(value).__name__


def united(shapes: list[Any]) -> Any:
    """Return the common shape of several: keys that only some objects have end in "?", other differences are joined with "|"."""
    distinct = [shape for index, shape in enumerate(shapes) if shape not in shapes[:index]]
    if len(distinct) == 1:
        return distinct[0]
    objects = [shape for shape in distinct if isinstance(shape, dict)]
    lists = [shape for shape in distinct if isinstance(shape, list)]
    rest = sorted({name for shape in distinct if isinstance(shape, str) for name in shape.split("|")})
    found: list[Any] = ["|".join(rest)] if rest else []
    if objects:
        names = dict.fromkeys(name for shape in objects for name in shape)
        found.append({_marked(name, objects): united([s[name] for s in objects if name in s]) for name in names})
    if lists:
        items = [item for shape in lists for item in shape]
        found.append([united(items)] if items else [])
    return found[0] if len(found) == 1 else {"one of": found}


def _marked(name: str, objects: list[dict[str, Any]]) -> str:
    return name if all(name in shape for shape in objects) or name.endswith("?") else f"{name}?"


def interface_of(command: click.Command) -> dict[str, Any]:
    """Return what scripts rely on in a command: every option and argument, and its subcommands."""
    interface: dict[str, Any] = {"parameters": [_parameter(each) for each in command.params]}
    if isinstance(command, click.Group):
        interface["commands"] = {name: interface_of(each) for name, each in sorted(command.commands.items())}
    return interface


def _parameter(parameter: click.Parameter) -> dict[str, Any]:
    """Return the differences from an optional parameter with one value and no default."""
    argument = isinstance(parameter, click.Argument)
    found: dict[str, Any] = {"argument": parameter.human_readable_name} if argument else {"option": "/".join(parameter.opts)}
    if parameter.secondary_opts:
        found["off"] = "/".join(parameter.secondary_opts)
    found["type"] = "flag" if getattr(parameter, "is_flag", False) else _type(parameter.type)
    more = {
        "metavar": parameter.metavar,
        "required": parameter.required or None,
        "multiple": getattr(parameter, "multiple", False) or None,
        "nargs": None if parameter.nargs == 1 else parameter.nargs,
        "default": _plain(parameter.to_info_dict()["default"]),
    }
    return found | {name: value for name, value in more.items() if value is not None}


def _type(kind: click.ParamType) -> Any:
    """Return a type's name with its choices or bounds."""
    if isinstance(kind, click.Choice):
        return {"choice": [_plain(choice) for choice in kind.choices]}
    if isinstance(kind, (click.IntRange, click.FloatRange)):
        return {kind.name: [kind.min, kind.max], "open": [kind.min_open, kind.max_open]}
    return kind.name


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return _plain(value.value)
    if "Sentinel" in type(value).__name__:  # click 8.3 has a sentinel for "no default"
        return None
    return value if isinstance(value, (int, float, str, bool, type(None))) else f"computed: {type(value).__name__}"
