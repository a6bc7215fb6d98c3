"""Reports of `bundle`, `inspect` and `verify`. Units are in the names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.codec import version

__all__ = ["BundleFile", "BundleReport", "BundleVariant", "LayoutReport"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class BundleFile:
    """A file of a bundle.

    Attributes:
        name: Relative path, with "/" between folders.
        sha256: Its sha256 in hex.
        size_bytes: Its size.
    """

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class BundleVariant:
    """One artifact that runs the network.

    Attributes:
        name: Name of the variant, such as "openvino-int8".
        file: File of the artifact in the bundle.
        kind: "onnx" or "engine".
        precision: Precision of its convolutions.
        backend: Backend that it is for; None for a plain ONNX file.
        candidate: Name of its candidate in the deployment's results; None without one.
        machine: Machine that an engine is for; empty where any will do.
    """

    name: str
    file: str
    kind: str
    precision: str
    backend: str | None
    candidate: str | None
    machine: dict[str, Any]


@dataclass(frozen=True)
class BundleReport:
    """What a bundle holds. Every byte of it has been compared with its checksums.

    Attributes:
        path: The bundle.
        digest: sha256 of its list of checksums (SHA256SUMS), to sign; the same for the folder and the archive.
        sha256: sha256 of the archive; None for a folder.
        name: Name of the model.
        variants: The artifacts.
        preprocessing: How an image becomes the input of every variant.
        classes: Names of the classes; empty where nobody stated them.
        licence: Licence of the checkpoint; None where nobody stated it.
        files: All files but the list of checksums.
        emca_deploy: Version that made it.
        notes: What its user should know.
    """

    path: Path
    digest: str
    sha256: str | None
    name: str
    variants: tuple[BundleVariant, ...]
    preprocessing: Preprocessing | None
    classes: tuple[str, ...]
    licence: str | None
    files: tuple[BundleFile, ...]
    emca_deploy: str
    notes: tuple[str, ...] = ()
    schema_version: int = version(SCHEMA_VERSION)


@dataclass(frozen=True)
class LayoutReport:
    """What `bundle --layout` wrote for a server.

    Attributes:
        path: The folder.
        layout: Name of the layout.
        name: Name of the model in requests.
        variant: The artifact that is served; `file` is its name in the folder.
        files: All files.
        notes: What its user should know.
    """

    path: Path
    layout: str
    name: str
    variant: BundleVariant
    files: tuple[BundleFile, ...]
    notes: tuple[str, ...] = ()
    schema_version: int = version(SCHEMA_VERSION)
