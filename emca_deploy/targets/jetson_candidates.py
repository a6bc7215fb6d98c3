"""Artifacts on a board: engines of TensorRT on its GPU, .onnx files on its processor unless a GPU's backend is asked for."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emca_deploy.artifacts import read_manifest
from emca_deploy.backends.registry import BACKENDS
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.targets.candidates import LocalOptions, candidate, split_artifact
from emca_deploy.targets.gpu import gpu_candidate

__all__ = ["TARGET", "jetson_candidate", "jetson_candidates"]

TARGET = "jetson"


def jetson_candidate(artifact: str, backend: str | None, options: LocalOptions) -> RunnerSpec:
    """Return one artifact as a candidate on this board.

    Args:
        artifact: an engine with its manifest, or an .onnx file.
        backend: to run it on; None is the engine's own, and ONNX Runtime on the processor for an .onnx file.
        options: how; threads and precision are the processor's.

    Raises:
        InputError: there is no such file, or it does not run on that backend.
        MissingError: what would run it is missing.
        ModelError: its manifest is damaged or another file's.
    """
    make, target = (gpu_candidate, "gpu") if _runs_on_gpu(artifact, backend) else (candidate, "cpu")
    return replace(make(artifact, backend, replace(options, target=target)), name=artifact, target=TARGET)


def _runs_on_gpu(artifact: str, backend: str | None) -> bool:
    if backend is None:
        manifest = read_manifest(Path(artifact), verify=False)
        backend = manifest.backend if manifest is not None and manifest.kind == "engine" else None
    return backend in BACKENDS and BACKENDS[backend].needs_gpu


def jetson_candidates(artifacts: Sequence[str], backends: Sequence[str], options: LocalOptions) -> tuple[RunnerSpec, ...]:
    """Return every artifact on every backend, with a name of its own each.

    With several candidates the idle threads of the processor's do not spin: here they would also take the GPU's power and memory.

    Args:
        artifacts: "path" or "backend=path"; the latter runs on that backend only.
        backends: to run the others on; none means the artifact's own.
        options: how.

    Raises:
        EmcaError: as `jetson_candidate`.
    """
    found = []
    for text in artifacts:
        own, path = split_artifact(text)
        asked: Sequence[str | None] = [own] if own else list(backends) or [None]
        found += [jetson_candidate(path, backend, options) for backend in asked]
    paths = [spec.artifact for spec in found]
    seen: dict[str, int] = {}
    named = []
    for spec in found:
        name = spec.name if paths.count(spec.artifact) == 1 else f"{spec.backend}={spec.artifact}"
        seen[name] = seen.get(name, 0) + 1
        kwargs = {**spec.kwargs, "spin": False} if len(found) > 1 and "spin" in spec.kwargs else spec.kwargs
        named.append(replace(spec, name=name if seen[name] == 1 else f"{name} #{seen[name]}", kwargs=kwargs))
    return tuple(named)
