"""Files that an operation reads and writes: no file may be both, or be written twice."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import manifest_path
from emca_deploy.errors import InputError, ModelError

__all__ = ["ARTIFACTS", "FileUse", "check_uses", "derived_uses", "paths_in"]

ARTIFACTS = ("artifact", "artifacts", "reference")
"""Parameters of commands whose texts name files that are read: "path" or "backend=path"."""

_DEPLOYED = ("result.json", "report.html")
_DEPLOYED_SUFFIXES = (".onnx", ".json", ".npz")


@dataclass(frozen=True)
class FileUse:
    """One file, and what an operation does with it.

    Attributes:
        path: The file, which need not exist.
        name: Its name in an error ("-o", "MODEL", "the manifest of -o").
        option: Option that names another file instead.
        written: Whether it is written.
    """

    path: Path
    name: str
    option: str
    written: bool


def check_uses(uses: Sequence[FileUse]) -> None:
    """Refuse a file that is written and has another use.

    Raises:
        InputError: A file has two uses; nothing has been written.
    """
    outputs = [use for use in uses if use.written]
    if any(use.path.exists() for use in outputs):
        uses = [*uses, *(sidecar for use in uses if not use.written for sidecar in _sidecars(use))]
    for index, use in enumerate(uses):
        for other in uses[index + 1 :]:
            if (use.written or other.written) and _same(use.path, other.path):
                written, kept = (use, other) if use.written else (other, use)
                raise InputError(
                    f"{written.name} {written.path}: is {kept.name} too, and would be overwritten",
                    f"name another file with {written.option}",
                )
    for use in outputs:
        for folder in uses:
            _check_folder(use, folder)


def _check_folder(use: FileUse, folder: FileUse) -> None:
    """Refuse to overwrite a file in a folder that is read: an image of a data set, or a file of a deployment."""
    from emca_deploy.data.preprocess import IMAGE_SUFFIXES

    if folder.written or not folder.path.is_dir() or not use.path.is_file():
        return
    if Path(os.path.realpath(folder.path)) not in Path(os.path.realpath(use.path)).parents:
        return
    deployment, suffix = folder.option == "DIR", use.path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or (deployment and suffix != ".html"):
        raise InputError(
            f"{use.name} {use.path}: is a file of {folder.name}, and would be overwritten", f"name another with {use.option}"
        )


def _same(one: Path, other: Path) -> bool:
    """Return whether two paths are one file; links are followed, and case counts unless the file system ignores it."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one does not exist yet
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


def paths_in(value: Any) -> Iterator[Path]:
    """Yield the files in a parameter's value: a path, "path", "backend=path", "first+second", or several of these."""
    for text in (value,) if isinstance(value, (str, Path)) else value or ():
        if isinstance(text, Path):
            yield text
            continue
        after = text.partition("=")[2]
        parts = [part for each in (text, after) for part in (each, *each.split("+")) if part]
        yield from (Path(part) for part in dict.fromkeys(parts))


def derived_uses(command: str, values: Mapping[str, Any], uses: Sequence[FileUse]) -> Iterator[FileUse]:
    """Yield the files whose names follow from the parameters of a command, and from the files they name."""
    for key in ("model", *ARTIFACTS):
        for path in paths_in(values.get(key)):
            yield FileUse(manifest_path(path), f"the manifest of {path}", "", written=False)
    if command in ("export", "calibrate", "build"):
        yield FileUse(manifest_path(values["output"]), "the manifest of -o", "-o", written=True)
    if command in ("calibrate", "sensitivity"):
        yield from _beside_table(values["model"], values["table"], str(values["backend"]))
    for key, option in (("logits", "--logits"), ("reference_logits", "--reference-logits")):
        if values.get(key) is not None:
            from emca_deploy.harness.accuracy.logits_store import partial_path

            yield FileUse(partial_path(values[key]), f"the partial file of {option}", option, written=True)
    if command == "report" and values["folder"].is_dir():
        yield FileUse(values["folder"] / "result.json", "the result", "DIR", written=False)
    if command == "deploy":
        yield from (FileUse(path, "a file in -o", "-o", written=True) for path in _deployed(uses, values["output"]))


def _beside_table(model: Path, table: Path | None, backend: str) -> Iterator[FileUse]:
    """Yield the range table if it has its default name, and the files that are kept next to it."""
    from emca_deploy.calibration.placement.quantize import LARGEST_WEIGHT
    from emca_deploy.calibration.ranges.table import table_path
    from emca_deploy.calibration.recovery.weights import rounded_path
    from emca_deploy.calibration.resume import side_path

    if table is None:
        table = table_path(model)
        yield FileUse(table, "the range table", "--table", written=True)
    for largest in LARGEST_WEIGHT.values():
        yield FileUse(rounded_path(table, largest), "the rounded weights next to the range table", "--table", written=True)
    for what in ("sensitivity", "search"):
        path = side_path(table, backend.replace("/", "_"), what)
        yield FileUse(path, f"the {what} file next to the range table", "--table", written=True)


def _deployed(uses: Iterable[FileUse], output: Path) -> Iterator[Path]:
    """Yield the inputs in the folder `output` that have the name of a file that `deploy` writes."""
    for path in (use.path for use in uses if not use.written):
        taken = path.name in _DEPLOYED or (path.name.startswith("model.") and path.suffix.lower() in _DEPLOYED_SUFFIXES)
        if taken and _same(path.parent, output):
            yield path


def _sidecars(use: FileUse) -> Iterator[FileUse]:
    """Yield the external data files of an ONNX model that is read."""
    if use.path.suffix.lower() != ".onnx" or not use.path.is_file():
        return
    from emca_deploy.onnx_file.file import OnnxFile

    try:
        sidecars = OnnxFile.open(use.path).sidecars
    except ModelError:
        return  # the command itself reports it
    for sidecar in sidecars:
        yield FileUse(sidecar.path, f"the weights of {use.name}", use.option, written=False)
