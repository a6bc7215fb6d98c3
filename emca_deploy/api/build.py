"""`build`: an engine from an ONNX model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emca_deploy._progress import Progress
from emca_deploy.artifacts import Manifest, read_manifest
from emca_deploy.backends.registry import recipe_of
from emca_deploy.calibration.placement.calibration_cache import float_layers
from emca_deploy.errors import InputError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.requests import BuildRequest
from emca_deploy.targets.named_machines import ready

__all__ = ["BuildReport", "build"]


@dataclass(frozen=True)
class BuildReport:
    """An engine that was built, its manifest, and notes and warnings of one line each."""

    engine: Path
    manifest: Manifest
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def size_mib(self) -> float:
        """Size of the engine file in MiB."""
        return self.engine.stat().st_size / 2**20

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `build`."""
        details = self.manifest.details
        return {
            "schema_version": 1,
            "engine": self.engine,
            "backend": self.manifest.backend,
            "precision": self.manifest.precision,
            "size_mib": self.size_mib,
            "sha256": self.manifest.sha256,
            "threads": details["threads"],
            "batch": details["batch"],
            "versions": self.manifest.versions,
            "machine": details["machine"],
            **{name: details[name] for name in ("board", "tensorrt", "trtexec", "dla") if name in details},
        }


def build(request: BuildRequest, progress: Progress | None = None) -> BuildReport:
    """Build an engine, and write it with its manifest.

    Raises:
        InputError: the target or an option is wrong.
        ModelError: the model cannot be read, or the backend cannot build it.
        MissingError: the backend or the device is missing.
        OutputError: the engine cannot be written.
    """
    # Callers may give paths; a request that is sent to a remote machine has texts.
    target, request = ready(replace(request, model=str(request.model), output=str(request.output)))
    if request.batch is not None and request.choices.batches is not None:
        raise InputError("--batch and --batches exclude each other", "give --batch for one size, --batches for a range")
    unfit = _unfit(request)
    if request.choices.calibration_cache is not None and (request.trtexec or target.is_remote):
        request = replace(request, float_layers=_float_layers(Path(request.model), request.backend))
    manifest, notes, warnings = target.build(request, progress)
    return BuildReport(Path(request.output), manifest, notes, (*unfit, *warnings))


def _unfit(request: BuildRequest) -> tuple[str, ...]:
    """Return a warning if the model is quantized for another backend."""
    source = read_manifest(Path(request.model), verify=False)
    if source is None or source.kind != "onnx" or source.backend in (None, request.backend):
        return ()
    slow = f"{request.model} is quantized for backend '{source.backend}'; on '{request.backend}' it may be slow"
    return (f"{slow}: calibrate with --backend {request.backend}",)


def _float_layers(model: Path, backend: str) -> tuple[str, ...]:
    """Return the layers that a calibration cache leaves in float; the builder refuses a model with Q/DQ."""
    recipe = recipe_of(backend)
    return () if recipe is None or OnnxFile.open(model).precision == "int8" else float_layers(model, recipe)
