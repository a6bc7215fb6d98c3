"""Artifacts: files with manifests that say what they are and how they were made."""

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
    "remember_sha256",
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
        name: name in the model.
        dtype: numpy's name of the type, such as "float32".
        shape: dimensions; a string names a dynamic one ("batch").
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Manifest:
    """What an artifact is and how it was made; written next to it as `<file>.manifest.json`.

    Attributes:
        kind: "onnx" or "engine".
        sha256: sha256 of the artifact.
        precision: precision of its convolutions.
        backend: backend that an engine or an INT8 model is for; None for a plain ONNX file.
        arch: architecture, if known.
        num_classes: number of classes, if known.
        preprocessing: how images become its input.
        inputs: sha256 of each file it was made from, by role ("checkpoint", "model", "calibration_table").
        versions: versions of the packages that made it, by name.
        command: command line that made it.
        details: other facts (threads, machine, parity, layer counts).
        settings: fastest runtime settings that `tune` found, one record per backend, scenario and batch; left out of the JSON
            if there are none.
        temperature: number to divide the logits by before the softmax, from `validate --fit-temperature`; left out of the JSON if
            there is none.
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
    temperature: float | None = left_out(None)

    @property
    def network(self) -> Preprocessing | None:
        """Preprocessing of the network, of which the graph may contain a part: that of the checkpoint it was made from."""
        within = self.details.get("in_graph")
        return self.preprocessing if within is None else from_json(Preprocessing, within["network"])

    def contradiction(self) -> str:
        """Return what is wrong in its details, or ""."""
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
    ("in_graph",): dict[str, Any],
    ("in_graph", "network"): Preprocessing,
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
"""Types of the details that are read again, if present."""


_manifests: Remembered[Manifest] = Remembered()


def this_command() -> str:
    """Return the command line of this process, to paste into a shell."""
    return shell_line(["emca-deploy", *sys.argv[1:]])


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file in hex; an unchanged file is read once.

    Raises:
        InputError: the file cannot be read.
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


def remember_sha256(path: Path, digest: str) -> None:
    """Remember the sha256 of a file that was just written, so that `sha256_file` does not read it again."""
    stamp = set_apart(path)
    if stamp is not None:
        _digests.put(path, stamp, digest, apart=True)


_digests: Remembered[str] = Remembered()


@dataclass
class Draft:
    """An artifact that is being made.

    Attributes:
        path: temporary file to write it to.
        manifest: manifest, which the caller sets; its sha256 is filled in when the artifact is complete.
    """

    path: Path
    manifest: Manifest | None = None

    @property
    def written(self) -> Manifest:
        """The manifest, once it is set."""
        assert self.manifest is not None
        return self.manifest


@contextmanager
def write_artifact(path: Path) -> Iterator[Draft]:
    """Yield a draft of an artifact, and then write it and its manifest; a failure leaves both files as they were.

    The manifest is written first. If the process is killed in between, `read_manifest` reports the wrong sha256.

    Raises:
        OutputError: the artifact or its manifest cannot be written.
    """
    place = manifest_path(path)
    before: bytes | None = None
    replaced = False
    try:
        with atomic_write(path) as temporary:
            draft = Draft(temporary)
            yield draft
            before = place.read_bytes() if place.is_file() else None
            draft.manifest = replace(draft.written, sha256=sha256_file(temporary))
            stamp = set_apart(temporary)  # renaming keeps the stamp
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
    """Write a text file, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
        ValueError: the document has a NaN or an infinity, which JSON has not.
    """
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def manifest_path(path: Path) -> Path:
    """Return the path of the manifest of `path`."""
    return path.with_name(path.name + ".manifest.json")


def write_manifest(path: Path, manifest: Manifest) -> Manifest:
    """Write the manifest of the complete file `path`, and return it with the sha256 filled in.

    Raises:
        OutputError: the manifest cannot be written.
    """
    manifest = replace(manifest, sha256=sha256_file(path))
    write_json(manifest_path(path), to_json(manifest))
    return manifest


def read_manifest(path: Path, *, verify: bool = True) -> Manifest | None:
    """Return the manifest of the file `path`, or None if it has none; `verify` checks the file's sha256.

    Raises:
        ModelError: the manifest cannot be read, or describes another file.
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
