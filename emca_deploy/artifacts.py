"""What the stops of the walk hand to each other: files with manifests that say what they are and where they came from."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from emca_deploy._text import shell_line
from emca_deploy._version import __version__
from emca_deploy.atomic import atomic_write
from emca_deploy.errors import DataError, InputError, ModelError
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.codec import from_json, left_out, misfit, to_json, version
from emca_deploy.unchanged import Remembered, set_apart, stamp_of

__all__ = [
    "Draft",
    "Manifest",
    "Precision",
    "Preprocessing",
    "TensorSpec",
    "atomic_write",
    "manifest_path",
    "read_manifest",
    "sha256_file",
    "this_command",
    "write_artifact",
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
        precision: the precision of its convolutions.
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
    manifest_version: int = version(MANIFEST_VERSION)
    emca_deploy: str = __version__
    settings: tuple[dict[str, Any], ...] = left_out(())

    def contradiction(self) -> str:
        """Return what of its details is not what is read from them, or ""."""
        for place, wanted in _DETAILS.items():
            value: Any = self.details
            for name in place:
                if name not in value:
                    break
                value = value[name]
            else:
                if wrong := misfit(value, wanted):
                    return f"{'.'.join(('details', *place))}: {wrong}"
        return ""


_DETAILS: dict[tuple[str, ...], Any] = {
    ("source",): str,
    ("batch",): int | Literal["dynamic"] | None,
    ("threads",): int | None,
    ("weight_bits",): int | None,
    ("inference_precision",): str,
    ("io",): dict[str, Any],
    ("machine",): dict[str, Any],
    ("machine", "architecture"): str | None,
    ("machine", "instruction_sets"): tuple[str, ...],
    ("tensorrt",): dict[str, Any],
    ("tensorrt", "batches"): tuple[int, int, int] | None,
    ("tensorrt", "dla_core"): int | None,
    ("tensorrt", "input"): dict[str, Any],
    ("tensorrt", "input", "name"): str,
    ("tensorrt", "input", "shape"): tuple[int | str, ...],
}
"""Those of a manifest's details that are read again, with what they must be where they are there."""


_manifests: Remembered[Manifest] = Remembered()


def this_command() -> str:
    """Return the command line of this process, as a person would type it."""
    return shell_line(["emca-deploy", *sys.argv[1:]])


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file in hex, read in pieces; not again while it is unchanged.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if known := _digests.get(path):
            return known
        digest, stamp = hashlib.sha256(), stamp_of(path)
        with path.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}", "check the path and its permissions") from exc
    found = digest.hexdigest()
    _digests.put(path, stamp, found)
    return found


_digests: Remembered[str] = Remembered()


@dataclass
class Draft:
    """An artifact that is being made.

    Attributes:
        path: a temporary file to write it to.
        manifest: to be set before the draft is left; its sha256 is filled in then.
    """

    path: Path
    manifest: "Manifest | None" = None

    @property
    def written(self) -> "Manifest":
        """The manifest as it was written."""
        assert self.manifest is not None
        return self.manifest


@contextmanager
def write_artifact(path: Path) -> Iterator[Draft]:
    """Yield a draft of an artifact; on success it and its manifest take their places, on any failure everything stays as it was.

    The manifest goes first. A process that is killed in between leaves a manifest that names another file's sha256 than the one
    that is there, which `read_manifest` tells; never an artifact that does not say what it is.

    Raises:
        OutputError: one of the two cannot be written.
    """
    place = manifest_path(path)
    before: bytes | None = None
    replaced = False
    try:
        with atomic_write(path) as temporary:
            draft = Draft(temporary)
            yield draft
            assert draft.manifest is not None, "an artifact has a manifest"
            before = place.read_bytes() if place.is_file() else None
            draft.manifest = replace(draft.manifest, sha256=sha256_file(temporary))
            stamp = set_apart(temporary)  # it keeps the stamp when it takes its place
            write_json(place, to_json(draft.manifest))
            replaced = True
    except BaseException:
        if replaced:
            _restore(place, before)
        raise
    if stamp is not None:
        _digests.put(path, stamp, draft.written.sha256, apart=True)


def _restore(place: Path, before: bytes | None) -> None:
    if before is None:
        place.unlink(missing_ok=True)
    else:
        with atomic_write(place) as temporary:
            temporary.write_bytes(before)


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
    write_json(manifest_path(path), to_json(manifest))
    return manifest


def read_manifest(path: Path, *, verify: bool = True) -> Manifest | None:
    """Return the manifest of the file `path`, or None where it has none; `verify` checks the file against its sha256.

    Raises:
        ModelError: the manifest cannot be read, or the file is not the one it describes.
    """
    place = manifest_path(path)
    try:
        known, stamp = _manifests.get(place), stamp_of(place)
        manifest = known or from_json(Manifest, json.loads(place.read_text(encoding="utf-8")))
        _manifests.put(place, stamp, manifest)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, DataError) as exc:
        reason = exc.problem if isinstance(exc, DataError) else exc
        remedy = f"make {path.name} again, or move that manifest away"
        raise ModelError(f"{place}: not a manifest of emca-deploy: {reason}", remedy) from exc
    if verify and sha256_file(path) != manifest.sha256:
        raise ModelError(f"{path}: is not the file its manifest describes (sha256 differs)", "make the file again")
    return manifest
