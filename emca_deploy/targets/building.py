"""What `build` does once its options are read: a request becomes an engine with its manifest, here on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emca_deploy._machine import default_threads
from emca_deploy._progress import Progress
from emca_deploy.artifacts import Manifest, write_manifest
from emca_deploy.backends.base import Builder, ModelIo, RunOptions
from emca_deploy.errors import InputError

if TYPE_CHECKING:
    from emca_deploy.backends.tensorrt.settings import TrtSettings
    from emca_deploy.machines.jetson.session import BoardSession

__all__ = ["BuildRequest", "build_here", "run_options"]


@dataclass(frozen=True)
class BuildRequest:
    """What a user asks of `build`.

    Attributes:
        model: the .onnx file.
        backend: the engine is for.
        threads: to compile for; None is one a physical core.
        batch: to specialise a dynamic batch to; None leaves it dynamic.
        choices: TensorRT's options by their names; None, False and () are not given.
        io: what is said of the model's input and output: "image_size", "output_name".
        float_layers: names of the layers that a calibration cache among the choices leaves in float; trtexec is told them.
        trtexec: "auto" or where it is, to build with it; None for TensorRT's Python package.
    """

    model: str
    backend: str
    threads: int | None = None
    batch: int | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)
    trtexec: str | None = None
    io: Mapping[str, Any] = field(default_factory=dict)
    float_layers: tuple[str, ...] = ()

    def given(self) -> dict[str, Any]:
        """Return the choices that the user made."""
        return {name: value for name, value in self.choices.items() if value is not None and value is not False and value != ()}

    def builder(self, progress: Progress | None = None) -> Builder:
        """Return what builds it.

        Raises:
            InputError: a choice that this backend does not have, or of a wrong form.
            UnknownNameError: there is no such backend.
        """
        return _builder(self, progress) if self.trtexec is None else _trtexec_builder(self)

    def trt_settings(self) -> "TrtSettings":
        """Return TensorRT's settings.

        Raises:
            InputError: a choice of a wrong form.
        """
        from emca_deploy.backends.tensorrt.settings import TrtSettings

        given = self.given()
        if "batches" in given:
            given["batches"] = _batches(given["batches"])
        return TrtSettings(**given)


def run_options(request: BuildRequest) -> RunOptions:
    """Return what the engine is compiled for."""
    return RunOptions(request.threads or default_threads(), batch=request.batch, io=ModelIo.from_dict(request.io))


def build_here(
    request: BuildRequest, output: Path, progress: Progress | None = None, board: "BoardSession | None" = None
) -> Manifest:
    """Build, write the engine with its manifest, and return that.

    Args:
        request: what to build.
        output: the engine's file.
        progress: called with (done, in all) where the backend tells.
        board: the Jetson board that this is, its power mode held.

    Raises:
        EmcaError: whatever the builder raises; a choice or the model is wrong, or something is missing.
    """
    from emca_deploy.machines.jetson.facts import check_dla_core

    if board is not None and request.choices.get("dla_core") is not None:
        check_dla_core(board.facts, request.choices["dla_core"])
    manifest = request.builder(progress).build(Path(request.model), output, run_options(request))
    if board is None:
        return manifest
    # TensorRT chooses by timing, so that an engine is also the child of its board's power mode.
    return write_manifest(output, replace(manifest, details={**manifest.details, "board": board.record}))


def _builder(request: BuildRequest, progress: Progress | None) -> Builder:
    """Return a backend's builder with the choices that only TensorRT has."""
    from emca_deploy.backends.records import names_where, one_of
    from emca_deploy.backends.registry import BACKENDS, get_builder

    builder, given = get_builder(request.backend), request.given()
    if not BACKENDS[request.backend].trt_settings:
        if given:
            names = ", ".join(f"--{name.replace('_', '-').replace('targets', 'target-capability')}" for name in sorted(given))
            able = one_of(names_where(trt_settings=True))
            raise InputError(f"backend '{request.backend}' has no {names}", f"leave it out, or use --backend {able}")
        return builder
    from emca_deploy.backends.tensorrt.builder import TrtBuilder

    assert isinstance(builder, TrtBuilder)  # the registry says so
    return type(builder)(request.trt_settings(), progress)


def _trtexec_builder(request: BuildRequest) -> Builder:
    """Return the builder that uses TensorRT's own tool."""
    from emca_deploy.backends.records import names_where, one_of
    from emca_deploy.backends.tensorrt.tool.builder import TrtexecBuilder

    if request.backend not in (able := names_where(trtexec=True)):
        raise InputError(f"--trtexec: backend '{request.backend}' is not built with it", f"use --backend {one_of(able)}")
    path = None if request.trtexec == "auto" else request.trtexec
    return TrtexecBuilder(request.trt_settings(), path, float_layers=request.float_layers)


def _batches(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--batches {text}: not three sizes", "for example --batches 1,8,64")
    smallest, likeliest, largest = (int(part) for part in parts)
    return smallest, likeliest, largest
