"""Which files a command line reads and which it writes: no file may be both, or be written twice."""

import functools
import os
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from emca_deploy.errors import InputError

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

_DEPLOYED = ("result.json", "report.html")
_DEPLOYED_SUFFIXES = (".onnx", ".json", ".npz")


@dataclass(frozen=True)
class _Use:
    """One file and what the command line wants with it.

    Attributes:
        path: the file, which need not exist.
        name: what to call it in an error ("-o", "MODEL", "the manifest of -o").
        option: what a person changes to have another file.
        written: whether it is written.
    """

    path: Path
    name: str
    option: str
    written: bool


def with_roles(name: str, command: click.Command) -> click.Command:
    """Return a command that compares the files of its command line before it does anything else."""
    inner = command.callback
    if inner is None:
        return command

    @functools.wraps(inner)
    def checked(*args: Any, **values: Any) -> Any:
        _check(list(_uses(name, command, values)))
        return inner(*args, **values)

    result = copy(command)
    result.callback = checked
    return result


def _check(uses: list[_Use]) -> None:
    """Refuse a file that is written and has another use.

    Raises:
        InputError: there is one; nothing has been written.
    """
    outputs = [use for use in uses if use.written]
    if any(use.path.exists() for use in outputs):  # only then is there anything to lose
        uses = uses + [sidecar for use in uses if not use.written for sidecar in _sidecars(use)]
    for index, use in enumerate(uses):
        for other in uses[index + 1 :]:
            if (use.written or other.written) and _same(use.path, other.path):
                written, kept = (use, other) if use.written else (other, use)
                raise InputError(
                    f"{written.name} {written.path}: is {kept.name} as well, and would be overwritten",
                    f"name another file with {written.option}",
                )
    for use in outputs:
        for folder in uses:
            _check_folder(use, folder)


def _check_folder(use: _Use, folder: _Use) -> None:
    """Refuse to write over a file of a folder that is read: an image of a data set, or what a deployment left."""
    if folder.written or not folder.path.is_dir() or not use.path.is_file() or not _inside(use.path, folder.path):
        return
    deployment = folder.option == "DIR"
    if _is_image(use.path) or (deployment and use.path.suffix.lower() != ".html"):
        raise InputError(
            f"{use.name} {use.path}: is a file of {folder.name}, and would be overwritten", f"name another with {use.option}"
        )


def _inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def _is_image(path: Path) -> bool:
    from emca_deploy.data.preprocess import IMAGE_SUFFIXES

    return path.suffix.lower() in IMAGE_SUFFIXES


def _same(one: Path, other: Path) -> bool:
    """Return whether two paths are one file: links are followed, and case where the file system ignores it."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one is not there yet
        return _resolved(one) == _resolved(other)


def _resolved(path: Path) -> str:
    place = Path(os.path.realpath(path))
    return str(place).casefold() if _ignores_case(place.parent) else str(place)


def _ignores_case(folder: Path) -> bool:
    if not folder.name:  # the root of the file system
        return False
    swapped = folder.with_name(folder.name.swapcase())
    try:
        return swapped.name != folder.name and swapped.samefile(folder)
    except OSError:
        return False


def _uses(name: str, command: click.Command, values: dict[str, Any]) -> Iterator[_Use]:
    """Yield every file of a command line, and those whose names are derived from them."""
    for parameter in command.params:
        key = parameter.name or ""
        if key not in OUTPUTS | INPUTS or values.get(key) is None:
            continue
        shown = _shown(parameter)
        for path in _paths(values[key]):
            yield _Use(path, shown, shown, key in OUTPUTS)
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


def _derived(name: str, values: dict[str, Any]) -> Iterator[_Use]:
    from emca_deploy.artifacts import manifest_path

    output = values.get("output")
    for key in ("model", "artifact", "artifacts", "reference"):
        for path in _paths(values[key]) if values.get(key) else ():
            yield _Use(manifest_path(path), f"the manifest of {path}", "", written=False)
    if name in _WITH_MANIFEST and output is not None:
        yield _Use(manifest_path(output), "the manifest of -o", "-o", written=True)
    if name in _WITH_TABLE:
        yield from _beside_table(values)
    if name == "validate":
        from emca_deploy.harness.accuracy.logits_store import partial_path

        for key, option in (("logits", "--logits"), ("reference_logits", "--reference-logits")):
            if values.get(key) is not None:
                yield _Use(partial_path(values[key]), f"the partial file of {option}", option, written=True)
    if name == "report" and values["folder"].is_dir():
        yield _Use(values["folder"] / "result.json", "the result", "DIR", written=False)
    if name == "deploy":
        yield from _deployed(values["output"], values)


def _beside_table(values: dict[str, Any]) -> Iterator[_Use]:
    """Yield the range table where it has its default name, and what is kept beside it."""
    from emca_deploy.calibration.placement.quantize import LARGEST_WEIGHT
    from emca_deploy.calibration.ranges.table import table_path
    from emca_deploy.calibration.recovery.weights import rounded_path
    from emca_deploy.calibration.resume import side_path

    table = values["table"]
    if table is None:
        table = table_path(values["model"])
        yield _Use(table, "the range table", "--table", written=True)
    for largest in LARGEST_WEIGHT.values():
        yield _Use(rounded_path(table, largest), "the rounded weights beside the range table", "--table", written=True)
    for what in ("sensitivity", "search"):
        path = side_path(table, str(values["backend"]).replace("/", "_"), what)
        yield _Use(path, f"the {what} file beside the range table", "--table", written=True)


def _deployed(output: Path, values: dict[str, Any]) -> Iterator[_Use]:
    """Yield the inputs that lie where `deploy` writes a file of that name."""
    for key in INPUTS:
        for path in _paths(values[key]) if values.get(key) else ():
            taken = path.name in _DEPLOYED or (path.name.startswith("model.") and path.suffix.lower() in _DEPLOYED_SUFFIXES)
            if taken and _same(path.parent, output):
                yield _Use(path, "a file in -o", "-o", written=True)


def _sidecars(use: _Use) -> Iterator[_Use]:
    """Yield the files with external data of an ONNX model that is read."""
    if use.path.suffix.lower() != ".onnx" or not use.path.is_file():
        return
    from emca_deploy.errors import ModelError
    from emca_deploy.onnx_file.file import OnnxFile

    try:
        sidecars = OnnxFile.open(use.path).sidecars
    except ModelError:
        return  # the command says so in a moment
    for sidecar in sidecars:
        yield _Use(sidecar.path, f"the weights of {use.name}", use.option, written=False)
