"""The files of a command line: none may be both read and written, or be written twice."""

import functools
from collections.abc import Iterable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import click

from emca_deploy.api.file_uses import FileUse, beside_table, check_uses, deployed, manifest_use, unfinished_use
from emca_deploy.commands._types import FileType

__all__ = ["ARTIFACTS", "with_roles"]

ARTIFACTS = ("artifact", "artifacts", "reference")
"""Parameters whose texts name files that are read: "path" or "backend=path"."""


def with_roles(name: str, command: click.Command) -> click.Command:
    """Return a command that first checks that no file of its command line is both read and written."""
    inner = command.callback
    assert inner is not None

    @functools.wraps(inner)
    def checked(*args: Any, **values: Any) -> Any:
        check_uses(_uses(name, command, values))
        return inner(*args, **values)

    result = copy(command)
    result.callback = checked
    return result


def _uses(name: str, command: click.Command, values: dict[str, Any]) -> list[FileUse]:
    """Return every file of a command line, and those whose names follow from them."""
    uses: list[FileUse] = []
    for parameter in command.params:
        key, kind = parameter.name or "", parameter.type
        if (isinstance(kind, FileType) or key in ARTIFACTS) and values.get(key) is not None:
            shown, written = _shown(parameter), isinstance(kind, FileType) and kind.written
            uses += [FileUse(path, shown, shown, written) for path in _paths(values[key])]
    return [*uses, *_derived(name, values, uses)]


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


def _derived(name: str, values: dict[str, Any], uses: Iterable[FileUse]) -> Iterator[FileUse]:
    for key in ("model", *ARTIFACTS):
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
        yield from deployed((use.path for use in uses if not use.written), values["output"])
