"""Files that an operation reads and writes: no file may be both, or be written twice."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emca_deploy.errors import InputError, ModelError

__all__ = ["FileUse", "beside_table", "check_uses", "deployed", "manifest_use", "unfinished_use"]

_DEPLOYED = ("result.json", "report.html")
_DEPLOYED_SUFFIXES = (".onnx", ".json", ".npz")


@dataclass(frozen=True)
class FileUse:
    """One file, and what an operation does with it.

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


def check_uses(uses: Sequence[FileUse]) -> None:
    """Refuse a file that is written and has another use.

    Raises:
        InputError: there is one; nothing has been written.
    """
    outputs = [use for use in uses if use.written]
    if any(use.path.exists() for use in outputs):  # only then is there anything to lose
        uses = [*uses, *(sidecar for use in uses if not use.written for sidecar in _sidecars(use))]
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


def _check_folder(use: FileUse, folder: FileUse) -> None:
    """Refuse to write over a file of a folder that is read: an image of a data set, or what a deployment left."""
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


def beside_table(model: Path, table: Path | None, backend: str, option: str) -> Iterator[FileUse]:
    """Yield the range table where it has its default name, and what is kept beside it.

    `option` is what a person changes to have another table.
    """
    from emca_deploy.calibration.placement.quantize import LARGEST_WEIGHT
    from emca_deploy.calibration.ranges.table import table_path
    from emca_deploy.calibration.recovery.weights import rounded_path
    from emca_deploy.calibration.resume import side_path

    if table is None:
        table = table_path(model)
        yield FileUse(table, "the range table", option, written=True)
    for largest in LARGEST_WEIGHT.values():
        yield FileUse(rounded_path(table, largest), "the rounded weights beside the range table", option, written=True)
    for what in ("sensitivity", "search"):
        path = side_path(table, backend.replace("/", "_"), what)
        yield FileUse(path, f"the {what} file beside the range table", option, written=True)


def manifest_use(path: Path, name: str, option: str = "") -> FileUse:
    """Return the manifest beside an artifact. It is written where `option` names what a person changes to have another."""
    from emca_deploy.artifacts import manifest_path

    return FileUse(manifest_path(path), name, option, written=bool(option))


def unfinished_use(path: Path, option: str) -> FileUse:
    """Return the file in which an interrupted validation keeps unfinished logits.

    `option` is what a person changes to have another file.
    """
    from emca_deploy.harness.accuracy.logits_store import partial_path

    return FileUse(partial_path(path), f"the partial file of {option}", option, written=True)


def deployed(inputs: Iterable[Path], output: Path, option: str) -> Iterator[FileUse]:
    """Yield the inputs that lie where `deploy` writes a file of that name.

    `option` is what a person changes to have another folder.
    """
    for path in inputs:
        taken = path.name in _DEPLOYED or (path.name.startswith("model.") and path.suffix.lower() in _DEPLOYED_SUFFIXES)
        if taken and _same(path.parent, output):
            yield FileUse(path, f"a file in {option}", option, written=True)


def _sidecars(use: FileUse) -> Iterator[FileUse]:
    """Yield the files with external data of an ONNX model that is read."""
    if use.path.suffix.lower() != ".onnx" or not use.path.is_file():
        return
    from emca_deploy.onnx_file.file import OnnxFile

    try:
        sidecars = OnnxFile.open(use.path).sidecars
    except ModelError:
        return  # the command says so in a moment
    for sidecar in sidecars:
        yield FileUse(sidecar.path, f"the weights of {use.name}", use.option, written=False)
