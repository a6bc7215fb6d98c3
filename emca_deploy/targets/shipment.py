"""The files that belong to what a user named, under the names that the far side gives them, and back."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import Manifest, manifest_path, read_manifest
from emca_deploy.errors import InputError
from emca_deploy.networks.checkpoint_files import list_shards
from emca_deploy.onnx_file import OnnxFile
from emca_deploy.remote.files import Blob
from emca_deploy.results.codec import to_json
from emca_deploy.targets.candidates import precision_of, split_artifact
from emca_deploy.targets.named_artifacts import split_builds

__all__ = ["Belongings"]

_PLAIN = re.compile(r"[^A-Za-z0-9._-]")


@dataclass
class Belongings:
    """Files to be sent, and what they are called on either side.

    Attributes:
        blobs: content by name there.
        names: what the user called it, by name there.
    """

    blobs: dict[str, Blob] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, path: str) -> str:
        """Add a model or an engine with all that belongs to it; return its name there.

        Raises:
            InputError: there is no such file, or it cannot be read.
            ModelError: it is no model, its manifest is damaged, or a file with its weights is missing.
        """
        for there, here in self.names.items():
            if here == path:
                return there
        place = Path(path)
        if not place.is_file():
            raise InputError(f"{path}: no such file", "name an .onnx file, or an engine with its manifest")
        folder = f"@{len(self.names)}"
        there = f"{folder}/{_PLAIN.sub('_', place.name)}"
        manifest = read_manifest(place)
        blob = Blob.of_file(place)
        self.blobs[there] = blob
        if manifest is not None:
            self.blobs[manifest_path(Path(there)).as_posix()] = Blob.of_file(manifest_path(place))
        elif place.suffix.lower() == ".onnx":
            # Its precision is read here: the far side need not have the onnx package.
            made = Manifest(kind="onnx", sha256=blob.digest, precision=precision_of(place, None))  # type: ignore[arg-type]
            self.blobs[manifest_path(Path(there)).as_posix()] = Blob.of_bytes(json.dumps(to_json(made)).encode())
        for name in _weights(place):
            self.blobs[f"{folder}/{name}"] = Blob.of_file(place.parent / name)
        self.names[there] = path
        return there

    def add_all(self, artifacts: Sequence[str]) -> tuple[str, ...]:
        """Add what a user named, "backend=path" and "first+second" too; return it as the far side calls it."""
        builds = split_builds(artifacts)
        groups: dict[str, list[str]] = {}
        for path, together in builds.groups.items():
            groups.setdefault(together, []).append(path)
        found: dict[str, None] = {}
        for text in builds.artifacts:
            backend, path = split_artifact(text)
            prefix = f"{backend}=" if backend else ""
            parts = groups.get(builds.groups.get(path, ""), [path])
            there = "+".join(self.add(part) for part in parts)
            found[prefix + there] = None
        return tuple(found)

    def ours(self, value: Any) -> Any:
        """Return a document of the far side's with the user's names in it."""
        if isinstance(value, str):
            for there, here in self.names.items():
                value = value.replace(there, here)
            return value
        if isinstance(value, dict):
            return {self.ours(key): self.ours(item) for key, item in value.items()}
        return [self.ours(item) for item in value] if isinstance(value, list | tuple) else value


def _weights(model: Path) -> list[str]:
    """Return the names of the files with a model's weights, beside it."""
    if model.suffix.lower() == ".json":
        return [shard.name for shard in list_shards(model)]
    if model.suffix.lower() != ".onnx":
        return []
    return [sidecar.location for sidecar in OnnxFile.open(model).sidecars]
