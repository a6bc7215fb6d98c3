"""Artifacts as a user names them: "path", "backend=path", and "first.engine+second.engine" for processes of one candidate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emca_deploy.artifacts import Manifest, sha256_file
from emca_deploy.backends.registry import BACKENDS
from emca_deploy.errors import InputError
from emca_deploy.harness.spec import RunnerSpec

__all__ = ["NamedArtifacts", "digests_of", "grouped", "precision_of", "split_artifact", "split_artifacts"]

_SIGN = "+"


def split_artifact(text: str) -> tuple[str | None, str]:
    """Return (backend, path) for "backend=path", and (None, path) for a path or for any file that exists."""
    backend, equals, path = text.partition("=")
    if equals and backend in BACKENDS and not Path(text).exists():
        return backend, path
    return None, text


@dataclass(frozen=True)
class NamedArtifacts:
    """Single artifacts, as "path" or "backend=path".

    `groups` has the user's text "first+second" for each path that is in one.
    """

    artifacts: tuple[str, ...]
    groups: dict[str, str]


def split_artifacts(artifacts: Sequence[str]) -> NamedArtifacts:
    """Split "a+b" into single artifacts. The name of a file that exists is never split.

    Raises:
        InputError: a file is named twice, or a part is empty.
    """
    single: list[str] = []
    groups: dict[str, str] = {}
    for text in artifacts:
        backend, path = split_artifact(text)
        parts = [path] if Path(path).exists() else path.split(_SIGN)
        prefix = f"{backend}=" if backend else ""
        if len(parts) > 1:
            if not all(parts):
                raise InputError(f"{text}: a file has no name", f"name every file: first.engine{_SIGN}second.engine")
            groups.update(dict.fromkeys(parts, path))
        single += [prefix + part for part in parts]
    for path in groups:
        if sum(split_artifact(text)[1] == path for text in single) > 1:
            raise InputError(f"{path}: is named twice, and once as one of several", "name it once")
    return NamedArtifacts(tuple(single), groups)


def grouped(specs: Sequence[RunnerSpec], named: NamedArtifacts) -> tuple[RunnerSpec, ...]:
    """Return the specs, with a group where several are processes of one candidate on one backend."""
    backends = {spec.artifact: {other.backend for other in specs if other.artifact == spec.artifact} for spec in specs}

    def marked(spec: RunnerSpec) -> RunnerSpec:
        together = named.groups.get(spec.artifact)
        if together is None:
            return spec
        return replace(spec, group=together if len(backends[spec.artifact]) == 1 else f"{spec.backend}={together}")

    return tuple(marked(spec) for spec in specs)


def digests_of(path: Path) -> dict[str, str]:
    """Return the sha256 of an artifact's files by path, those with external data of an ONNX model included.

    Raises:
        ModelError: the .onnx file cannot be read.
        InputError: a file cannot be read.
    """
    from emca_deploy.onnx_file.file import OnnxFile

    try:
        sidecars = OnnxFile.open(path).sidecars if path.suffix.lower() == ".onnx" else ()
    except ImportError:  # a board that only runs models may lack onnx
        sidecars = ()
    return {str(file): sha256_file(file) for file in (path, *(sidecar.path for sidecar in sidecars))}


def precision_of(path: Path, manifest: Manifest | None) -> str:
    """Return the precision of an artifact: its manifest's, else that of an .onnx file's graph, else fp32 (a checkpoint).

    Raises:
        ModelError: the .onnx file cannot be read.
    """
    if manifest is not None:
        return manifest.precision
    if path.suffix.lower() != ".onnx":
        return "fp32"
    from emca_deploy.onnx_file.file import OnnxFile

    return OnnxFile.open(path).precision
