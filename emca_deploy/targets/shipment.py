"""The files that a request needs on a remote machine, with their local and remote names."""

import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from emca_deploy.artifacts import Manifest, manifest_path, read_manifest
from emca_deploy.checkpoint_files.opening import list_shards
from emca_deploy.data.files import FolderStore, printable
from emca_deploy.data.layout import find_images, find_named
from emca_deploy.errors import DataError, EmcaError, InputError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.remote.errors import ConnectionLostError
from emca_deploy.remote.files import Blob
from emca_deploy.remote.protocol import ZIP_DATE
from emca_deploy.results.codec import to_json
from emca_deploy.targets.named_artifacts import precision_of, split_artifact, split_artifacts
from emca_deploy.tasks.host_part import heads_path

__all__ = ["Shipment", "packed"]

_PLAIN = re.compile(r"[^A-Za-z0-9._-]")
_TOP = "data"
"""Folder around all images: readers take a zip's only top folder for a wrapper, not for a class."""


@dataclass
class Shipment:
    """Files to be sent (`blobs`) and their local names (`names`), both by remote name."""

    blobs: dict[str, Blob] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, path: str) -> str:
        """Add a model or an engine, with its manifest and weights; return its remote name.

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
            # The precision is read on this machine, because the remote one may lack the onnx package.
            made = Manifest(kind="onnx", sha256=blob.digest, precision=precision_of(file, None))  # type: ignore[arg-type]
            self.blobs[manifest_path(Path(remote)).as_posix()] = Blob.of_bytes(json.dumps(to_json(made)).encode())
        if (heads := heads_path(file)).is_file():
            self.blobs[heads_path(Path(remote)).as_posix()] = Blob.of_file(heads)
        for name in _weights(file):
            self.blobs[f"{folder}/{name}"] = Blob.of_file(file.parent / name)
        self.names[remote] = path
        return remote

    def add_as(self, remote: str, path: Path, local: str | None = None) -> str:
        """Add a file under a remote name, and return that name. Its local name is `local`, by default its path."""
        self.blobs[remote], self.names[remote] = Blob.of_file(path), local or str(path)
        return remote

    def add_all(self, artifacts: Sequence[str]) -> tuple[str, ...]:
        """Add artifacts as a user names them, also "backend=path" and "first+second"; return them with remote names."""
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
        """Return a value with local names in place of remote ones."""
        if isinstance(value, str):
            for remote, local in self.names.items():
                value = value.replace(remote, local)
            return value
        if isinstance(value, dict):
            return {self.local(key): self.local(item) for key, item in value.items()}
        return [self.local(item) for item in value] if isinstance(value, list | tuple) else value

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Replace remote names in errors of the block by local ones."""
        try:
            yield
        except ConnectionLostError:
            raise
        except EmcaError as error:
            raise type(error)(self.local(error.problem), self.local(error.remedy)) from error


def _weights(model: Path) -> list[str]:
    """Return the names of the files with a model's weights, in the model's folder."""
    if model.suffix.lower() == ".json":
        return [shard.name for shard in list_shards(model)]
    if model.suffix.lower() != ".onnx":
        return []
    return [sidecar.location for sidecar in OnnxFile.open(model).sidecars]


@contextmanager
def packed(source: Path, images: Sequence[str] | None = None) -> Iterator[Path]:
    """Yield a data set as one file: a .zip or .npz as it is, a folder as a .zip with always the same bytes.

    Of a folder only `images` are packed, by name, or all where None.

    Raises:
        DataError: the path is no data set.
    """
    if not source.is_dir():
        if not source.is_file() or source.suffix.lower() not in (".zip", ".npz"):
            raise DataError(f"{printable(str(source))}: not a data set", "name a folder of images, a .zip of one, or an .npz")
        yield source
        return
    store = FolderStore(source)
    layout = find_images(store, may_be_wrapped=False) if images is None else find_named(store, images)
    with TemporaryDirectory(prefix="emca-") as folder:
        packed_file = Path(folder) / "images.zip"
        with zipfile.ZipFile(packed_file, "w", zipfile.ZIP_STORED) as archive:
            for name in layout.names:
                try:
                    name.encode()
                except UnicodeEncodeError as exc:
                    raise DataError(f"{store.describe(layout.root + name)}: its name is not UTF-8", "rename it") from exc
                with store.open(layout.root + name) as stream:
                    archive.writestr(zipfile.ZipInfo(f"{_TOP}/{name}", ZIP_DATE), stream.read())
        yield packed_file
