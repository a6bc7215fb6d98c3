"""The files that a request needs on another machine, under the names that they have on either side."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import Manifest, manifest_path, read_manifest
from emca_deploy.errors import EmcaError, InputError
from emca_deploy.networks.checkpoint_files import list_shards
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.remote.errors import ConnectionLostError
from emca_deploy.remote.files import Blob
from emca_deploy.results.codec import to_json
from emca_deploy.targets.named_artifacts import precision_of, split_artifact, split_artifacts

__all__ = ["Shipment"]

_PLAIN = re.compile(r"[^A-Za-z0-9._-]")


@dataclass
class Shipment:
    """Files to be sent, by remote name, and their local names by remote name."""

    blobs: dict[str, Blob] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, path: str) -> str:
        """Add a model or an engine with all that belongs to it; return its remote name.

        Raises:
            InputError: there is no such file, or it cannot be read.
            ModelError: it is no model, its manifest is damaged, or a file with its weights is missing.
        """
        for remote, local in self.names.items():
            if local == path:
                return remote
        file = Path(path)
        if not file.is_file():
            raise InputError(f"{path}: no such file", "name an .onnx file, or an engine with its manifest")
        folder = f"@{len(self.names)}"
        remote = f"{folder}/{_PLAIN.sub('_', file.name)}"
        manifest = read_manifest(file)
        blob = Blob.of_file(file)
        self.blobs[remote] = blob
        if manifest is not None:
            self.blobs[manifest_path(Path(remote)).as_posix()] = Blob.of_file(manifest_path(file))
        elif file.suffix.lower() == ".onnx":
            # Its precision is read here: the remote machine need not have the onnx package.
            made = Manifest(kind="onnx", sha256=blob.digest, precision=precision_of(file, None))  # type: ignore[arg-type]
            self.blobs[manifest_path(Path(remote)).as_posix()] = Blob.of_bytes(json.dumps(to_json(made)).encode())
        for name in _weights(file):
            self.blobs[f"{folder}/{name}"] = Blob.of_file(file.parent / name)
        self.names[remote] = path
        return remote

    def add_as(self, remote: str, path: Path, local: str | None = None) -> str:
        """Add a file under a remote name, and return that. The user's own name for it is its path, or `local`.

        Raises:
            InputError: the file cannot be read.
        """
        self.blobs[remote], self.names[remote] = Blob.of_file(path), local or str(path)
        return remote

    def add_all(self, artifacts: Sequence[str]) -> tuple[str, ...]:
        """Add what a user named, "backend=path" and "first+second" too; return it with the remote names."""
        builds = split_artifacts(artifacts)
        groups: dict[str, list[str]] = {}
        for path, together in builds.groups.items():
            groups.setdefault(together, []).append(path)
        found: dict[str, None] = {}
        for text in builds.artifacts:
            backend, path = split_artifact(text)
            prefix = f"{backend}=" if backend else ""
            parts = groups.get(builds.groups.get(path, ""), [path])
            found[prefix + "+".join(self.add(part) for part in parts)] = None
        return tuple(found)

    def local(self, value: Any) -> Any:
        """Return a value from the remote machine with the local names in it."""
        if isinstance(value, str):
            for remote, local in self.names.items():
                value = value.replace(remote, local)
            return value
        if isinstance(value, dict):
            return {self.local(key): self.local(item) for key, item in value.items()}
        return [self.local(item) for item in value] if isinstance(value, list | tuple) else value

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Have errors that are raised in the block name the local files."""
        try:
            yield
        except ConnectionLostError:
            raise
        except EmcaError as error:
            raise type(error)(self.local(error.problem), self.local(error.remedy)) from error


def _weights(model: Path) -> list[str]:
    """Return the names of the files with a model's weights, beside it."""
    if model.suffix.lower() == ".json":
        return [shard.name for shard in list_shards(model)]
    if model.suffix.lower() != ".onnx":
        return []
    return [sidecar.location for sidecar in OnnxFile.open(model).sidecars]
