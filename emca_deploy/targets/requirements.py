"""Checks that a remote machine has what a request needs, before anything is sent."""

from collections.abc import Iterable
from pathlib import Path

from emca_deploy.artifacts import read_manifest
from emca_deploy.backends.records import names_where
from emca_deploy.backends.registry import BACKENDS, CHECKPOINTS, DEFAULT, backend_of
from emca_deploy.remote.address import Address
from emca_deploy.remote.probe import Facts, check_runtime

__all__ = ["check_backends", "needed_backend", "trtexec_suffices"]


def needed_backend(path: Path, asked: str | None) -> str | None:
    """Return the backend that an artifact runs on: `asked`, else its own; None if the remote machine chooses."""
    if asked is not None:
        return asked
    if path.suffix.lower() in CHECKPOINTS:
        return backend_of(path, None)
    manifest = read_manifest(path, verify=False)
    own = manifest.backend if manifest is not None else None
    if (manifest is not None and manifest.kind == "engine") or path.suffix.lower() != ".onnx":
        return own
    # INT8 that was placed for another backend runs there only on a fitting processor.
    return DEFAULT if own in (None, DEFAULT) else None


def check_backends(address: Address, facts: Facts, backends: Iterable[str | None], *, builds: bool = False) -> None:
    """Refuse a machine that lacks the runtimes of these backends; None is an unknown one.

    With `builds`, TensorRT also needs the onnx package, to read the model.

    Raises:
        MissingError: a runtime is not installed.
    """
    if facts.python is None:  # this is reported instead
        return
    for name in sorted({backend for backend in backends if backend}):
        module = BACKENDS[name].module if name in BACKENDS else None
        if module is not None:
            check_runtime(address, facts, module, f"backend '{name}'")
        if builds and name in BACKENDS and BACKENDS[name].trt_settings:
            check_runtime(address, facts, "onnx", f"backend '{name}' to build an engine")


def trtexec_suffices(facts: Facts, backends: set[str | None], *, builds: bool) -> bool:
    """Return whether a machine's trtexec does the work, because the machine has one, and no Python that can."""
    if facts.trtexec is None or any(BACKENDS[name].checkpoints for name in backends if name in BACKENDS):
        return False
    able = names_where(trtexec=True)
    needed = {*(BACKENDS[name].module for name in able), *(["onnx"] if builds else [])}
    return facts.python is None or (backends == set(able) and not needed <= set(facts.versions))
