"""The parameters of command lines that name files, and whether each file is read or written."""

import functools
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import click

from emca_deploy.api.file_uses import FileUse, beside_table, check_uses, deployed, manifest_use, unfinished_use

__all__ = ["INPUTS", "OUTPUTS", "with_roles"]

OUTPUTS = frozenset({"output", "raw", "plot", "table", "cache", "logits", "reference_logits", "flips", "timing_cache"})
"""Parameters that name a file or folder which is written; a range table and logits are also read."""

INPUTS = frozenset(
    {
        "model", "checkpoint", "artifact", "artifacts", "reference", "a", "b", "folder", "data", "validation",
        "calibration_cache", "layer_info", "labels", "class_map", "preprocessing_file",
    }
)  # fmt: skip
"""Parameters that name a file or folder which is only read."""


def with_roles(name: str, command: click.Command) -> click.Command:
    """Return a command that first checks that no file of its command line is both read and written."""
    inner = command.callback
    assert inner is not None

    @functools.wraps(inner)
    def checked(*args: Any, **values: Any) -> Any:
        check_uses(list(_uses(name, command, values)))
        return inner(*args, **values)

    result = copy(command)
    result.callback = checked
    return result


def _uses(name: str, command: click.Command, values: dict[str, Any]) -> Iterator[FileUse]:
    """Yield every file of a command line, and those whose names follow from them."""
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
    for key in ("model", "artifact", "artifacts", "reference"):
        for path in _paths(values[key]) if values.get(key) else ():
            yield manifest_use(path, f"the manifest of {path}")
    if name in ("export", "calibrate", "build"):
        yield manifest_use(values["output"], "the manifest of -o", "-o")
    if name in ("calibrate", "sensitivity"):
        yield from beside_table(values["model"], values["table"], str(values["backend"]))
    for key, option in (("logits", "--logits"), ("reference_logits", "--reference-logits")):
        if values.get(key) is not None:
            yield unfinished_use(values[key], option)
    if name == "report" and values["folder"].is_dir():
        yield FileUse(values["folder"] / "result.json", "the result", "DIR", written=False)
    if name == "deploy":
        inputs = (path for key in INPUTS if values.get(key) for path in _paths(values[key]))
        yield from deployed(inputs, values["output"])
