"""The checks of an engine before TensorRT reads its bytes."""

import hashlib
from pathlib import Path

from emca_deploy.artifacts import Manifest, read_manifest
from emca_deploy.backends.engines import build_command
from emca_deploy.backends.tensorrt.cuda import GpuFacts
from emca_deploy.errors import EngineError, InputError
from emca_deploy.machines.nvidia import check_rtx

__all__ = ["check_gpu_fits", "check_profile", "check_version", "profile_of", "read_engine"]

Profile = tuple[int, int, int]


def read_engine(path: Path, backend: str) -> tuple[bytes, Manifest]:
    """Return an engine's bytes, which its manifest describes, and that manifest.

    The bytes are read once: TensorRT gets the bytes that are hashed here, even if the file changes afterwards.

    Raises:
        EngineError: the engine has no manifest, or differs from it.
        InputError: the engine cannot be read, or is for another backend.
        ModelError: the manifest cannot be read.
    """
    manifest = read_manifest(path, verify=False)
    if manifest is None or manifest.kind != "engine":
        raise EngineError(
            f"{path}: has no manifest of emca-deploy that says it is an engine, so its bytes are not trusted",
            f"copy {path.name}.manifest.json along with it, or build it again: {build_command(path, backend, None)}",
        )
    if manifest.backend != backend:
        raise InputError(
            f"{path}: is an engine of backend '{manifest.backend}', not of '{backend}'", f"use --backend {manifest.backend}"
        )
    try:
        engine = path.read_bytes()
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}", "check the path and its permissions") from exc
    if hashlib.sha256(engine).hexdigest() != manifest.sha256:
        raise EngineError(
            f"{path}: is truncated or changed: it is not the engine its manifest describes (sha256 differs)",
            f"copy it again, or build it again: {build_command(path, backend, manifest)}",
        )
    return engine, manifest


def check_version(path: Path, manifest: Manifest, version: str) -> None:
    """Raise EngineError for an engine of another version, unless it is version-compatible and of an older one."""
    backend = manifest.backend or ""
    built = manifest.versions.get(backend)
    if built == version:
        return
    if manifest.details.get("tensorrt", {}).get("version_compatible") and built and _numbers(built) <= _numbers(version):
        return
    raise EngineError(
        f"{path}: was built with {backend} {built}, this machine has {version}",
        f"build it again: {build_command(path, backend, manifest)}",
    )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def check_gpu_fits(path: Path, manifest: Manifest, gpu: GpuFacts) -> None:
    """Refuse an engine that was not built for a GPU of this compute capability.

    Raises:
        EngineError: it was built for other GPUs, or its manifest names none.
        MissingError: TensorRT-RTX cannot build for this GPU.
    """
    built = manifest.details.get("tensorrt", {})
    names = manifest.details.get("machine", {}).get("instruction_sets", [])
    here = f"sm_{gpu.capability.replace('.', '')}"
    if here in names or (built.get("hardware_compatible") and float(gpu.capability) >= 8.0):
        return
    if manifest.backend == "tensorrt-rtx":
        check_rtx(gpu.capability)  # for some GPUs no engine can be built
    wanted = f" --target-capability {gpu.capability}" if built.get("targets") else ""
    raise EngineError(
        f"{path}: was built for {', '.join(names) or 'a GPU its manifest does not name'}, GPU {gpu.index} ({gpu.name}) is {here}",
        f"build it {'again' if wanted else 'on this GPU'}: {build_command(path, manifest.backend or '', manifest)}{wanted}",
    )


def profile_of(manifest: Manifest) -> Profile | None:
    """Return the smallest, likeliest and largest batch that an engine was built for, or None where its batch is fixed."""
    batches = manifest.details.get("tensorrt", {}).get("batches")
    return None if batches is None else (int(batches[0]), int(batches[1]), int(batches[2]))


def check_profile(path: Path, profile: Profile | None, batch: int) -> None:
    """Raise InputError for a batch outside the profile that an engine was built for."""
    if profile is None or profile[0] <= batch <= profile[2]:
        return
    smallest, likeliest, largest = profile
    wider = ",".join(map(str, (min(smallest, batch), likeliest, max(largest, batch))))
    raise InputError(
        f"{path}: takes batches of {smallest} to {largest}, not {batch}",
        f"use a --batch in that range, or build it with --batches {wider}",
    )
