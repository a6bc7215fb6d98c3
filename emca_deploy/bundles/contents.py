"""What goes into a bundle: artifacts with their manifests, the ONNX models they were built from, ranges and results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emca_deploy._text import printable
from emca_deploy.artifacts import Manifest, manifest_path, read_manifest, sha256_file
from emca_deploy.backends.records import names_where
from emca_deploy.bundles.canonical_zip import check_name
from emca_deploy.errors import BundleError, InputError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.bundle import BundleVariant
from emca_deploy.results.deploy import RESULT_NAME, DeployReport, read_deploy_report

__all__ = ["Contents", "collect"]

_VARIANTS, _RESULT, _RANGES = "variants", "results/result.json", "ranges.json"


@dataclass
class Contents:
    """Files by their names in the bundle, and what is known about them.

    Attributes:
        files: Path of each file by its name in the bundle.
        variants: The artifacts, those that were measured to be fastest first.
        manifests: Manifest of each variant, by its name.
        deployment: Results of the deployment; None without one.
    """

    files: dict[str, Path] = field(default_factory=dict)
    variants: list[BundleVariant] = field(default_factory=list)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    deployment: DeployReport | None = None

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How an image becomes the input of every variant."""
        return next(iter(self.manifests.values())).preprocessing

    @property
    def num_classes(self) -> int | None:
        """Number of classes, if known."""
        return next(iter(self.manifests.values())).num_classes

    @property
    def title(self) -> str:
        """Name of the model: that of its deployment, of its architecture, or of its file."""
        first = next(iter(self.manifests.values()))
        title = self.deployment.title if self.deployment is not None else first.arch
        return printable(title or Path(self.variants[0].file).name)


def collect(sources: Sequence[Path]) -> Contents:
    """Return the contents of a bundle of folders of deployments and artifacts.

    Raises:
        InputError: a file is missing or cannot be read, or has no manifest, or two of them are for different inputs.
    """
    found = Contents()
    for source in sources:
        if source.is_dir():
            _add_deployment(found, source)
        else:
            _add(found, source)
    _check_alike(found)
    times = _times(found.deployment)
    found.variants.sort(key=lambda variant: times.get(variant.candidate or "", float("inf")))
    return found


def _times(deployment: DeployReport | None) -> dict[str, float]:
    """Return the median latency of each candidate, in ms."""
    return {} if deployment is None else {each.name: each.latency.latency_ms.p50 for each in deployment.candidates}


def _add_deployment(found: Contents, folder: Path) -> None:
    if found.deployment is not None:
        raise BundleError(f"{folder}: is the second deployment", "bundle one deployment, with single artifacts beside it")
    found.deployment = read_deploy_report(folder)
    found.files[_RESULT] = folder / RESULT_NAME
    onnx = {sha256_file(path): path for path in sorted(folder.glob("*.onnx"))}
    for candidate in found.deployment.candidates:
        path = folder / Path(candidate.latency.artifact).name
        if not path.is_file():
            if candidate.latency.backend in names_where(checkpoints=True):
                continue  # it ran the checkpoint, which is no artifact to deliver
            raise InputError(f"{path}: is missing, the artifact of candidate '{candidate.name}'", "run `deploy` again")
        manifest = _add(found, path, candidate.name)
        source = onnx.get(manifest.inputs.get("model", ""))
        if source is not None:
            _add(found, source, candidate.name)
    _add_ranges(found, folder)


def _add_ranges(found: Contents, folder: Path) -> None:
    used = {each.inputs.get("calibration_table") for each in found.manifests.values()}
    path = next((path for path in sorted(folder.glob("*.ranges.json")) if sha256_file(path) in used), None)
    if path is not None:
        found.files[_RANGES] = path


def _add(found: Contents, path: Path, candidate: str | None = None) -> Manifest:
    """Add an artifact with its manifest and external data, unless the same file is there already; return its manifest."""
    if not path.is_file():
        raise InputError(f"{path}: no such file", "name the folder of a deployment, or artifacts with their manifests")
    manifest = read_manifest(path)
    if manifest is None:
        remedy = "bundle what `export`, `calibrate` or `build` made, with its .manifest.json"
        raise BundleError(f"{path}: has no manifest, so its preprocessing is unknown", remedy)
    if manifest.sha256 in (each.sha256 for each in found.manifests.values()):
        return manifest
    name = _unique("-".join(filter(None, (manifest.backend, manifest.precision, _ending(manifest)))), found)
    for inner, file in _files(path, manifest):
        found.files[check_name(f"{_VARIANTS}/{name}/{inner}")] = file
    variant = BundleVariant(
        name,
        f"{_VARIANTS}/{name}/{path.name}",
        manifest.kind,
        manifest.precision,
        manifest.backend,
        candidate,
        dict(manifest.details.get("machine", {})) if manifest.kind == "engine" else {},
    )
    found.variants.append(variant)
    found.manifests[name] = manifest
    return manifest


def _ending(manifest: Manifest) -> str:
    return "onnx" if manifest.kind == "onnx" else ""


def _unique(name: str, found: Contents) -> str:
    number, result = 1, name
    while result in found.manifests:
        number += 1
        result = f"{name}-{number}"
    return result


def _files(path: Path, manifest: Manifest) -> Iterator[tuple[str, Path]]:
    """Yield the files of an artifact, by their names in its folder."""
    yield path.name, path
    yield manifest_path(path).name, manifest_path(path)
    if manifest.kind == "onnx":
        for sidecar in OnnxFile(path).sidecars:
            yield sidecar.location, sidecar.path


def _check_alike(found: Contents) -> None:
    """Refuse artifacts that cannot take the same images or do not tell the same classes apart."""
    if not found.variants:
        raise BundleError("there is no artifact to bundle", "name the folder of a deployment, or artifacts with their manifests")
    first, *others = found.variants
    one = found.manifests[first.name]
    for variant in others:
        other = found.manifests[variant.name]
        for what, left, right in (
            ("preprocessing", one.preprocessing, other.preprocessing),
            ("numbers of classes", one.num_classes, other.num_classes),
        ):
            if left != right:
                problem = f"{first.file} and {variant.file} have different {what}"
                raise BundleError(problem, "bundle the artifacts of one network with one preprocessing")
