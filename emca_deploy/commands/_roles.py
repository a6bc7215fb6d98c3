"""Which parameters of a command line name files that are read, and which name files that are written."""

import functools
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import click

from emca_deploy.api.file_uses import FileUse, beside_table, check_uses, deployed, manifest_use, unfinished_use

__all__ = ["INPUTS", "OUTPUTS", "with_roles"]

OUTPUTS = frozenset({"output", "raw", "plot", "table", "cache", "logits", "reference_logits", "flips", "timing_cache"})
"""Parameters of commands that name a file or folder which is written. A range table and logits are read as well."""

INPUTS = frozenset(
    {
        "model", "checkpoint", "artifact", "artifacts", "reference", "a", "b", "folder", "data", "validation",
        "calibration_cache", "layer_info", "labels", "class_map", "preprocessing_file",
    }
)  # fmt: skip
"""Parameters that name a file or folder which is only read."""

_WITH_MANIFEST = ("export", "calibrate", "build")
"""Commands whose output has a manifest beside it."""

_WITH_TABLE = ("calibrate", "sensitivity")
"""Commands that keep a range table, and more beside it."""


def with_roles(name: str, command: click.Command) -> click.Command:
    """Return a command that compares the files of its command line before it does anything else."""
    inner = command.callback
    if inner is None:
        return command

    @functools.wraps(inner)
    def checked(*args: Any, **values: Any) -> Any:
        check_uses(list(_uses(name, command, values)))
        return inner(*args, **values)

    result = copy(command)
    result.callback = checked
    return result


def _uses(name: str, command: click.Command, values: dict[str, Any]) -> Iterator[FileUse]:
    """Yield every file of a command line, and those whose names are derived from them."""
    for parameter in command.params:
        key = parameter.name or ""
        if key not in OUTPUTS | INPUTS or values.get(key) is None:
            continue
        shown = _shown(parameter)
        for path in _paths(values[key]):
            yield FileUse(path, shown, shown, key in OUTPUTS)
    yield from _derived(name, values)


def _shown(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return parameter.human_readable_name
    return "-o" if "-o" in parameter.opts else parameter.opts[-1]


def _paths(value: Any) -> Iterator[Path]:
    """Yield the files in a value: a path, "backend=path", "first+second", or several of these."""
    if isinstance(value, Path):
        yield value
        return
    for text in (value,) if isinstance(value, str) else value:
        after = str(text).partition("=")[2]
        parts = [part for each in (str(text), after) for part in (each, *each.split("+")) if part]
        yield from (Path(part) for part in dict.fromkeys(parts))


def _derived(name: str, values: dict[str, Any]) -> Iterator[FileUse]:
    """Yield the files whose names follow from those of the command line."""
    output = values.get("output")
    for key in ("model", "artifact", "artifacts", "reference"):
        for path in _paths(values[key]) if values.get(key) else ():
            yield manifest_use(path, f"the manifest of {path}")
    if name in _WITH_MANIFEST and output is not None:
        yield manifest_use(output, "the manifest of -o", "-o")
    if name in _WITH_TABLE:
        yield from beside_table(values["model"], values["table"], str(values["backend"]), "--table")
    for key, option in (("logits", "--logits"), ("reference_logits", "--reference-logits")):
        if values.get(key) is not None:
            yield unfinished_use(values[key], option)
    if name == "report" and values["folder"].is_dir():
        yield FileUse(values["folder"] / "result.json", "the result", "DIR", written=False)
    if name == "deploy":
        inputs = (path for key in INPUTS if values.get(key) for path in _paths(values[key]))
        yield from deployed(inputs, values["output"], "-o")
