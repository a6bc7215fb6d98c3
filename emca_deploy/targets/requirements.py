"""What a remote machine must have for a request, found out before anything is sent."""

from collections.abc import Iterable
from pathlib import Path

from emca_deploy.artifacts import read_manifest
from emca_deploy.backends.records import names_where
from emca_deploy.backends.registry import BACKENDS, CHECKPOINTS, DEFAULT, backend_of
from emca_deploy.remote.address import Address
from emca_deploy.remote.probe import Facts, check_runtime

__all__ = ["check_backends", "needed_backend", "trtexec_suffices"]


def needed_backend(path: Path, asked: str | None) -> str | None:
    """Return the backend that an artifact runs on: the one asked for, else its own; None where the remote machine decides."""
    if asked is not None:
        return asked
    if path.suffix.lower() in CHECKPOINTS:
        return backend_of(path, None)
    manifest = read_manifest(path, verify=False)
    own = manifest.backend if manifest is not None else None
    if (manifest is not None and manifest.kind == "engine") or path.suffix.lower() != ".onnx":
        return own
    # INT8 that was placed for another backend runs on it only where the processor fits.
    return DEFAULT if own in (None, DEFAULT) else None


def check_backends(address: Address, facts: Facts, backends: Iterable[str | None], *, builds: bool = False) -> None:
    """Refuse a machine without the runtimes that are asked for.

    A backend of None is an unknown one. Before an engine is built (`builds`), TensorRT's options are read from the model.

    Raises:
        MissingError: one is not installed.
    """
    if facts.python is None:  # that is reported instead
        return
    for name in sorted({backend for backend in backends if backend}):
        module = BACKENDS[name].module if name in BACKENDS else None
        if module is not None:
            check_runtime(address, facts, module, f"backend '{name}'")
        if builds and name in BACKENDS and BACKENDS[name].trt_settings:
            check_runtime(address, facts, "onnx", f"backend '{name}' to build an engine")


def trtexec_suffices(facts: Facts, backends: set[str | None], *, builds: bool) -> bool:
    """Return whether a machine's trtexec has to do the work: it has no Python that can, and a trtexec."""
    if facts.trtexec is None or any(BACKENDS[name].checkpoints for name in backends if name in BACKENDS):
        return False
    able = names_where(trtexec=True)
    needed = {*(BACKENDS[name].module for name in able), *(["onnx"] if builds else [])}
    return facts.python is None or (backends == set(able) and not needed <= set(facts.versions))
