"""Builds an engine on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy._machine import default_threads
from emca_deploy._progress import Progress
from emca_deploy.artifacts import Manifest
from emca_deploy.backends.base import Builder, ModelIo, RunOptions
from emca_deploy.errors import InputError
from emca_deploy.requests import BuildRequest

if TYPE_CHECKING:
    from emca_deploy.backends.tensorrt.settings import TrtSettings

__all__ = ["build_engine", "builder_of", "run_options", "trt_settings"]


def build_engine(request: BuildRequest, progress: Progress | None = None) -> Manifest:
    """Build an engine, write it with its manifest, and return the manifest.

    Raises:
        EmcaError: an option or the model is wrong, something is missing, or the build fails.
    """
    return builder_of(request, progress).build(Path(request.model), Path(request.output), run_options(request))


def run_options(request: BuildRequest) -> RunOptions:
    """Return the options that the engine is compiled for."""
    return RunOptions(request.threads or default_threads(), batch=request.batch, io=ModelIo.from_dict(request.io))


def builder_of(request: BuildRequest, progress: Progress | None = None) -> Builder:
    """Return the builder of a request.

    Raises:
        InputError: the backend does not have an option, or its value is wrong.
        UnknownNameError: there is no such backend.
        MissingError: the backend's library is not installed.
    """
    from emca_deploy.backends.records import names_where, one_of
    from emca_deploy.backends.registry import BACKENDS, get_builder

    if request.trtexec is not None:
        from emca_deploy.backends.tensorrt.tool.builder import TrtexecBuilder

        if request.backend not in (able := names_where(trtexec=True)):
            raise InputError(f"--trtexec: does not build for backend '{request.backend}'", f"use --backend {one_of(able)}")
        path = None if request.trtexec == "auto" else request.trtexec
        return TrtexecBuilder(trt_settings(request), path, float_layers=request.float_layers)
    builder, given = get_builder(request.backend), request.choices.given()
    if not BACKENDS[request.backend].trt_settings:
        if given:
            names = ", ".join(f"--{name.replace('_', '-').replace('targets', 'target-capability')}" for name in sorted(given))
            others = one_of(names_where(trt_settings=True))
            raise InputError(f"backend '{request.backend}' has no {names}", f"leave it out, or use --backend {others}")
        return builder
    from emca_deploy.backends.tensorrt.builder import TrtBuilder

    assert isinstance(builder, TrtBuilder)  # the registry says so
    return type(builder)(trt_settings(request), progress)


def trt_settings(request: BuildRequest) -> "TrtSettings":
    """Return TensorRT's settings; an InputError if `--batches` is wrong."""
    from emca_deploy.backends.tensorrt.settings import TrtSettings

    given = request.choices.given()
    if "batches" in given:
        parts = given["batches"].split(",")
        if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
            raise InputError(f"--batches {given['batches']}: not three sizes", "for example --batches 1,8,64")
        given["batches"] = tuple(map(int, parts))
    return TrtSettings(**given)
