"""What the stops of the walk hand to each other: files with manifests that say what they are and where they came from."""

import errno
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from emca_deploy._text import shell_line, shell_word
from emca_deploy._version import __version__
from emca_deploy.errors import InputError, ModelError, OutputError
from emca_deploy.preprocessing import Preprocessing

__all__ = [
    "Manifest",
    "Precision",
    "Preprocessing",
    "TensorSpec",
    "atomic_write",
    "manifest_path",
    "read_manifest",
    "sha256_file",
    "this_command",
    "write_json",
    "write_manifest",
    "write_text",
]

Precision = Literal["fp32", "fp16", "bf16", "int8"]

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class TensorSpec:
    """A model's input or output.

    Attributes:
        name: as the model has it.
        dtype: numpy's name, for example "float32".
        shape: dimensions; a string names a dynamic one ("batch").
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Manifest:
    """What a file is and where it came from; written beside it as `<file>.manifest.json`.

    Attributes:
        kind: "onnx" or "engine".
        sha256: of the file itself.
        precision: of its convolutions.
        backend: the backend an engine or an INT8 placement is for; None for a plain ONNX file.
        arch: the architecture's name where known.
        num_classes: the width of the logits where known.
        preprocessing: how images become its input.
        inputs: sha256 by role of what it was made from ("checkpoint", "model", "calibration_table").
        versions: version by package of what made it.
        command: the command line that made it.
        details: what else its maker records (threads, machine, parity, layer counts).
        settings: what `tune` found to be the fastest runtime settings, one record for each backend, scenario and batch;
            absent from the JSON where there are none.
    """

    kind: Literal["onnx", "engine"]
    sha256: str
    precision: Precision
    backend: str | None = None
    arch: str | None = None
    num_classes: int | None = None
    preprocessing: Preprocessing | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    manifest_version: int = MANIFEST_VERSION
    emca_deploy: str = __version__
    settings: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        document = asdict(self)
        if not self.settings:
            del document["settings"]
        return document

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Manifest":
        """Rebuild from JSON.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or unknown, or the manifest is of another version.
        """
        fields = dict(values)
        if fields["manifest_version"] != MANIFEST_VERSION:
            raise ValueError(f"version {fields['manifest_version']}, this emca-deploy reads {MANIFEST_VERSION}")
        if fields.get("preprocessing") is not None:
            fields["preprocessing"] = Preprocessing.from_dict(fields["preprocessing"])
        fields["settings"] = tuple(dict(record) for record in fields.get("settings", ()))
        return cls(**fields)


def this_command() -> str:
    """Return the command line of this process, as a person would type it."""
    return shell_line(["emca-deploy", *sys.argv[1:]])


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file in hex, read in pieces.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}", "check the path and its permissions") from exc
    return digest.hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed to `path`, on any failure removed.

    The temporary name keeps the suffix, for libraries that choose a format by it.

    An OSError about another file, raised by the caller's own code, passes unchanged.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, or `path` is a folder or a device.
    """
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder", "name a file")
        if path.exists() and not path.is_file():  # renaming over /dev/null would replace the device
            raise OutputError(f"{path}: is not a regular file", "name a file")
        descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    except OSError as exc:
        raise _output_error(path, exc) from exc
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        _publish(temporary, path)
    except OSError as exc:
        if exc.filename is not None and not str(exc.filename).startswith((name, str(path))):
            raise
        raise _output_error(path, exc) from exc
    finally:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path) -> None:
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)  # mkstemp gives 0600
    temporary.replace(path)


def _output_error(path: Path, exc: OSError) -> OutputError:
    remedies = {
        "ENOENT": f"make the folder first: mkdir -p {shell_word(str(path.parent))}",
        "ENOSPC": "free space there, or write elsewhere",
    }
    code = errno.errorcode.get(exc.errno or 0, "")
    return OutputError(f"{path}: cannot be written: {exc.strerror or exc}", remedies.get(code, "choose a place you can write to"))


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or none.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document, whole or not at all; NaN is refused rather than written as invalid JSON.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def manifest_path(path: Path) -> Path:
    """Return where the manifest of `path` lies."""
    return path.with_name(path.name + ".manifest.json")


def write_manifest(path: Path, manifest: Manifest) -> Manifest:
    """Write the manifest of the finished file `path`, filling in its sha256, and return it.

    Raises:
        OutputError: it cannot be written.
    """
    manifest = replace(manifest, sha256=sha256_file(path))
    write_json(manifest_path(path), manifest.to_dict())
    return manifest


def read_manifest(path: Path, *, verify: bool = True) -> Manifest | None:
    """Return the manifest of `path`, or None where it has none.

    Args:
        path: the file the manifest is about.
        verify: also check the file against the manifest's sha256.

    Raises:
        ModelError: the manifest cannot be read, or the file is not the one it describes.
    """
    place = manifest_path(path)
    try:
        manifest = Manifest.from_dict(json.loads(place.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ModelError(f"{place}: not a manifest of ours: {exc}", "make the file again, or delete the manifest") from exc
    if verify and sha256_file(path) != manifest.sha256:
        raise ModelError(f"{path}: is not the file its manifest describes (sha256 differs)", "make the file again")
    return manifest
