"""Engines: how they differ from plain models, what their manifests record, and when they are refused."""

from abc import abstractmethod
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from emca_deploy._machine import cpu_info
from emca_deploy._text import shell_line
from emca_deploy.artifacts import Manifest, read_manifest, sha256_file, this_command, write_artifact
from emca_deploy.backends.base import PRECISION_OF_HINT, Builder, ModelIo, RunOptions
from emca_deploy.backends.boundary import graph_facts
from emca_deploy.errors import EngineError, InputError, ModelError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.onnx_file.header import check_onnx_file

__all__ = ["EngineBuilder", "build_command", "engine_io", "identify", "machine_facts", "verify_engine"]


def identify(path: Path, backend: str) -> Manifest | None:
    """Return the manifest of an engine of `backend`, or None for a plain ONNX file, whose bytes have been checked.

    Raises:
        EngineError: the file is neither an .onnx file nor an engine with its manifest.
        InputError: it is an engine of another backend.
        ModelError: it is not an ONNX file, or is damaged.
    """
    manifest = read_manifest(path, verify=False)
    if manifest is not None and manifest.kind == "engine":
        if manifest.backend != backend:
            raise InputError(
                f"{path}: is an engine of backend '{manifest.backend}', not of '{backend}'", f"use --backend {manifest.backend}"
            )
        return manifest
    if manifest is None and path.suffix.lower() != ".onnx" and path.is_file():
        raise EngineError(
            f"{path}: is neither an .onnx file nor an engine with its manifest",
            f"copy {path.name}.manifest.json along with it, or build it again: {build_command(path, backend, None)}",
        )
    check_onnx_file(path)
    return None


def engine_io(manifest: Manifest, asked: ModelIo) -> ModelIo:
    """Return the input and output that an engine's manifest records; the requested output name and image size take precedence."""
    try:
        known = ModelIo.from_dict(manifest.details.get("io", {}))
    except (TypeError, ValueError, KeyError, IndexError):
        return asked
    return replace(known, output_name=asked.output_name or known.output_name, image_size=asked.image_size)


def machine_facts() -> dict[str, Any]:
    """Return the facts of this machine that an engine depends on."""
    info = cpu_info()
    return {"model": info.model, "architecture": info.architecture, "instruction_sets": list(info.instruction_sets)}


def verify_engine(path: Path, manifest: Manifest, runtime: tuple[str, str]) -> None:
    """Raise EngineError where bytes, runtime (name, version) or machine differ from those in an engine's manifest."""
    remedy = f"build it again here: {build_command(path, manifest.backend or '', manifest)}"
    if not path.is_file() or sha256_file(path) != manifest.sha256:
        raise EngineError(f"{path}: is not the engine its manifest describes (sha256 differs)", remedy)
    name, version = runtime
    if manifest.versions.get(name) != version:
        raise EngineError(f"{path}: was built with {name} {manifest.versions.get(name)}, this machine has {version}", remedy)
    here, built = machine_facts(), manifest.details.get("machine", {})
    if built.get("architecture") != here["architecture"]:
        raise EngineError(f"{path}: was built for {built.get('architecture')}, this machine is {here['architecture']}", remedy)
    lacking = [name for name in built.get("instruction_sets", []) if name not in here["instruction_sets"]]
    if lacking:
        raise EngineError(f"{path}: was built for a processor with {', '.join(lacking)}, which this one lacks", remedy)


def build_command(path: Path, backend: str, manifest: Manifest | None) -> str:
    """Return the command that builds an engine, with the source and batch of its manifest, if any."""
    details = manifest.details if manifest else {}
    batch = ["--batch", str(details["batch"])] if details.get("batch") else []
    source = str(details.get("source", "MODEL.onnx"))
    return shell_line(["emca-deploy", "build", source, "--backend", backend, "-o", str(path), *batch])


class EngineBuilder(Builder):
    """A builder that checks the model, writes the manifest, and lets the engine appear whole or not at all."""

    backend: str

    @abstractmethod
    def compile(self, model: Path, output: Path, options: RunOptions) -> tuple[str, str]:
        """Write the engine of `model` to `output` (a temporary name) and return the runtime's name and version.

        Raises:
            ModelError: the runtime does not accept the model.
            InputError: an option is wrong for this model or backend.
            MissingError: the library or the device it needs is missing.
        """

    def build(self, model: Path, output: Path, options: RunOptions) -> Manifest:
        """Write the engine and its manifest; see `Builder.build`. Raises InputError also where the model is an engine already."""
        if output.exists() and model.exists() and output.samefile(model):
            raise InputError(f"{output}: is the model itself", "name another output with -o")
        source = read_manifest(model)
        if source is not None and source.kind == "engine":
            raise InputError(f"{model}: is an engine already", "name the .onnx file it was built from")
        file = OnnxFile.open(model)
        precision = PRECISION_OF_HINT.get(options.precision) or (source.precision if source else file.precision)
        with write_artifact(output) as draft:
            name, version = self.compile(model, draft.path, options)
            if not draft.path.stat().st_size:
                raise ModelError(f"{model}: {name} wrote an empty engine", "report this with the model")
            manifest = _manifest(model, source, options)
            manifest = replace(manifest, precision=precision, backend=self.backend, versions={name: version})
            draft.manifest = self.describe(manifest)
        return draft.written

    def describe(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the details that only this backend knows of the engine it has just compiled."""
        return manifest


def _manifest(model: Path, source: Manifest | None, options: RunOptions) -> Manifest:
    """Return an engine's manifest with the facts of its model's manifest and of this machine."""
    return Manifest(
        kind="engine",
        sha256="",
        precision="fp32",
        arch=source.arch if source else None,
        num_classes=source.num_classes if source else None,
        preprocessing=source.preprocessing if source else None,
        inputs={"model": OnnxFile.open(model).sha256},
        command=this_command(),
        details={
            "machine": machine_facts(),
            "threads": options.threads,
            "batch": options.batch,
            "inference_precision": options.precision,
            "source": str(model),
            "io": asdict(graph_facts(model, options.io)),
            **{name: source.details[name] for name in ("weight_bits", "detector") if source and name in source.details},
        },
    )
