"""`build` on a machine by its own trtexec: the model goes there, the engine comes home."""

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from emca_deploy._progress import Progress
from emca_deploy.artifacts import this_command, write_manifest
from emca_deploy.backends.records import names_where, one_of
from emca_deploy.backends.tensorrt.tool.builder import TrtexecBuilder
from emca_deploy.backends.tensorrt.tool.dialects import TrtexecBuild
from emca_deploy.backends.tensorrt.tool.find import Trtexec
from emca_deploy.backends.tensorrt.tool.run import EngineBuild, build_engine
from emca_deploy.errors import EmcaError, InputError, WorkerError
from emca_deploy.machines.jetson.facts import check_dla_core
from emca_deploy.remote.address import Address
from emca_deploy.remote.files import Blob, fetch, send
from emca_deploy.remote.trtexec import RemoteTrtexec, remote_trtexec
from emca_deploy.requests import BuildRequest
from emca_deploy.targets.base import Built
from emca_deploy.targets.building import run_options, trt_settings

__all__ = ["build_by_trtexec"]


def build_by_trtexec(
    address: Address,
    trtexec: str | None,
    request: BuildRequest,
    progress: Progress | None = None,
) -> Built:
    """Build an engine of TensorRT with a far machine's trtexec, and return its manifest with notes for the user.

    Args:
        address: the machine.
        trtexec: where it is there; None looks in the usual places.
        request: what to build; its files are this machine's.
        progress: called with (bytes there, bytes in all) while the model is sent.

    Raises:
        EmcaError: whatever trtexec says, or the machine cannot be used.
        LineLostError: the connection was lost.
    """
    if request.backend not in (able := names_where(trtexec=True)):
        raise InputError(f"backend '{request.backend}' is not built with trtexec", f"use --backend {one_of(able)}")
    core = request.choices.dla_core
    with remote_trtexec(address, trtexec, request.power_mode) as far:
        if core is not None and far.board is not None:
            check_dla_core(far.board.facts, core)
        builder = _RemoteBuilder(request, far, progress)
        manifest = builder.build(Path(request.model), Path(request.output), run_options(request))
    board = far.record()
    details = {**manifest.details, "built_on": str(address), **({"board": board} if board else {})}
    written = write_manifest(Path(request.output), replace(manifest, command=this_command(), details=details))
    return Built(written, (f"built there with {far.tool.path} {far.tool.version_text}", *far.warnings))


class _RemoteBuilder(TrtexecBuilder):
    """The builder whose tool and files are a far machine's."""

    def __init__(self, request: BuildRequest, far: RemoteTrtexec, progress: Progress | None) -> None:
        super().__init__(trt_settings(request), float_layers=request.float_layers)
        self._far, self._progress = far, progress

    def _find(self) -> Trtexec:
        return self._far.tool

    def _build(self, tool: Trtexec, wanted: TrtexecBuild) -> EngineBuild:
        connection, machine = self._far.connection, self._far.machine
        engine = f"{machine.folder}/{secrets.token_hex(4)}.engine"
        there = send(connection, Blob.of_file(Path(wanted.onnx)), self._progress)
        cache = send(connection, Blob.of_file(Path(wanted.cache))) if wanted.cache is not None else None
        try:
            built = build_engine(tool, replace(wanted, onnx=there, engine=engine, cache=cache), machine, self._timeout_s)
        except EmcaError as error:
            raise type(error)(error.problem.replace(there, wanted.onnx), error.remedy.replace(there, wanted.onnx)) from error
        fetch(connection, engine, None, Path(wanted.engine))
        return replace(built, options=tuple(option.replace(there, wanted.onnx) for option in built.options))

    def _machine(self) -> dict[str, Any]:
        board = self._far.board
        capability = board.facts.capability if board else None
        if board is None and self._far.architecture is None:
            raise WorkerError(f"{self._far.connection.address}: does not say what it is", "see what `uname -m` says there")
        return {
            "model": board.facts.model if board else f"a GPU of {self._far.connection.address}",
            "architecture": self._far.architecture,
            "instruction_sets": [f"sm_{capability.replace('.', '')}"] if capability else [],
        }
