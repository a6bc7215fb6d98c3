"""Every backend, one line each; and which backend an artifact belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from emca_deploy._machine import default_threads, find_gpus
from emca_deploy._optional import EXTRAS, installed_version
from emca_deploy._version import __version__
from emca_deploy.artifacts import manifest_path, read_manifest
from emca_deploy.backends.base import Builder, ModelIo, Runner, RunOptions
from emca_deploy.backends.tunables import check_settings
from emca_deploy.errors import EngineError, InputError, MissingError, ModelError, UnknownNameError

__all__ = [
    "BACKENDS",
    "DEFAULT",
    "Backend",
    "BackendStatus",
    "available",
    "backend_of",
    "get_builder",
    "open_gpu_runner",
    "open_runner",
    "read_options",
]

DEFAULT = "onnxruntime"
GPU_EXTRA = "pip install 'emca-deploy[gpu]'"
CHECKPOINTS = (".pth", ".pt", ".tar", ".ckpt", ".safetensors", ".json")


@dataclass(frozen=True)
class Backend:
    """Where a backend's parts are.

    Attributes:
        module: that must be importable; None where nothing must.
        runner: "module:Class".
        builder: likewise; None where there is nothing to build.
        gpu: whether the runner needs an NVIDIA GPU; the builder says itself what it needs.
        on_gpu: "module:Class" of what runs it on a GPU, taking the GPU's index besides; None where nothing does.
    """

    module: str | None
    runner: str
    builder: str | None = None
    gpu: bool = False
    on_gpu: str | None = None


BACKENDS: dict[str, Backend] = {
    "onnxruntime": Backend(
        "onnxruntime", "onnxruntime.runner:OrtRunner", "onnxruntime.runner:OrtBuilder", on_gpu="onnxruntime.runner:OrtRunner"
    ),
    "openvino": Backend("openvino", "openvino.runner:OvRunner", "openvino.runner:OvBuilder"),
    "torch": Backend("torch", "torch.cpu:TorchRunner", on_gpu="torch.gpu:TorchGpuRunner"),
    "tensorrt": Backend(
        "tensorrt", "tensorrt.runner:TrtRunner", "tensorrt.builder:TrtBuilder", True, "tensorrt.runner:TrtRunner"
    ),
    "tensorrt-rtx": Backend(
        "tensorrt_rtx", "tensorrt.runner:RtxRunner", "tensorrt.builder:RtxBuilder", True, "tensorrt.runner:RtxRunner"
    ),
    "fake": Backend(None, "fake:FakeRunner"),
}

_PUBLIC = tuple(name for name in BACKENDS if name != "fake")


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can be used here.

    Attributes:
        version: of its library; None where it is not installed.
        reason: why it cannot be used; None where it can.
        remedy: what to do about it.
    """

    version: str | None
    reason: str | None = None
    remedy: str | None = None


def available() -> dict[str, BackendStatus]:
    """Return every backend's status by name. Reads metadata only: no runtime is imported."""
    return {name: _status(name) for name in BACKENDS}


def _status(name: str) -> BackendStatus:
    backend = BACKENDS[name]
    if backend.module is None:
        return BackendStatus(__version__)
    if find_spec(backend.module) is None:
        distribution, extra, minimum = EXTRAS[backend.module]
        target = f"'emca-deploy[{extra}]'" if extra else distribution
        return BackendStatus(
            None, f"{distribution} is not installed", f"pip install {target} (needs {distribution} {minimum} or newer)"
        )
    version = installed_version(backend.module) or "unknown"
    if backend.gpu and not find_gpus():
        reason = "builds engines, but does not run them: that needs an NVIDIA GPU with its driver, and there is none here"
        remedy = f"emca-deploy build MODEL.onnx --backend {name}, and run the engine on a machine with a GPU"
        return BackendStatus(version, reason, remedy)
    if backend.gpu and installed_version("cuda") is None:
        return BackendStatus(version, "running its engines needs cuda-bindings, which is not installed", GPU_EXTRA)
    if name == "tensorrt-rtx" and (refusal := _rtx_refusal()) is not None:
        return BackendStatus(version, refusal, "use TensorRT there, or onnxruntime-gpu; engines for other GPUs can be built")
    return BackendStatus(version)


@cache
def _rtx_refusal() -> str | None:
    from emca_deploy.backends.tensorrt.cuda import capability_here
    from emca_deploy.machines.nvidia import rtx_refusal

    return rtx_refusal(capability_here())


def _installed(name: str) -> Backend:
    """Return a backend whose library is installed; a missing device is for the runner to say, after a look at the file."""
    if name not in BACKENDS:
        raise UnknownNameError.of("backend", name, _PUBLIC, f"backends: {', '.join(_PUBLIC)}")
    status = _status(name)
    if status.version is None:
        raise MissingError(f"backend '{name}': {status.reason}", status.remedy or "choose another backend")
    return BACKENDS[name]


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"emca_deploy.backends.{module}"), name)


def open_runner(
    backend: str,
    artifact: str,
    threads: int = 1,
    precision: str = "f32",
    batch: int | None = None,
    spin: bool = True,
    settings: Mapping[str, Any] | None = None,
    io: Mapping[str, Any] | None = None,
) -> Runner:
    """Return the runner of an artifact, not opened yet. The parameters are those of `RunOptions`, `io` as JSON.

    Raises:
        UnknownNameError: no backend, or no setting of it, of that name.
        MissingError: its library is not installed.
        InputError: threads or batch is not positive, or a setting has a value that it does not take.
    """
    options = replace(read_options(backend, threads, precision, batch, spin, settings), io=ModelIo.from_dict(io or {}))
    entry = _installed(backend)
    return cast("Runner", _load(entry.runner)(artifact, options))


def read_options(
    backend: str,
    threads: int = 1,
    precision: str = "f32",
    batch: int | None = None,
    spin: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> RunOptions:
    """Return the parameters of `open_runner` as options, looked over.

    Raises:
        UnknownNameError, InputError: as `open_runner`.
    """
    check_settings(backend, settings or {})
    return replace(_options(threads, precision, batch, spin), settings=dict(settings or {}))


def open_gpu_runner(backend: str, artifact: str, device: int = 0, batch: int | None = None, variant: str = "") -> Runner:
    """Return the runner of an artifact on an NVIDIA GPU, not opened yet.

    Args:
        backend: its name.
        artifact: the file.
        device: the GPU's index.
        batch: to specialise to; None leaves a dynamic one dynamic.
        variant: of torch: see `torch_gpu.VARIANTS`.

    Raises:
        UnknownNameError: no backend of that name.
        MissingError: its library is not installed.
        InputError: it does not run on GPUs, or the batch is not positive.
    """
    entry = _installed(backend)
    if entry.on_gpu is None:
        able = ", ".join(name for name, other in BACKENDS.items() if other.on_gpu)
        raise InputError(f"backend '{backend}' does not run on a GPU", f"choose one of: {able}")
    arguments = {"device": device, **({"variant": variant} if variant else {})}
    return cast("Runner", _load(entry.on_gpu)(artifact, _options(default_threads(), "f32", batch, True), **arguments))


def _options(threads: int, precision: str, batch: int | None, spin: bool) -> RunOptions:
    for name, value in (("threads", threads), ("batch", batch)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}", f"give --{name} 1 or more")
    return RunOptions(threads, precision, batch, spin)


def get_builder(backend: str) -> Builder:
    """Return the builder of a backend's engines.

    Raises:
        UnknownNameError: no backend of that name.
        MissingError: its library is not installed.
        InputError: it has no engines.
    """
    entry = _installed(backend)
    if entry.builder is None:
        able = ", ".join(name for name, other in BACKENDS.items() if other.builder)
        raise InputError(f"backend '{backend}' has no engines to build", f"choose one of: {able}")
    return cast("Builder", _load(entry.builder)())


def backend_of(artifact: Path, asked: str | None) -> str:
    """Return the backend that runs an artifact.

    An engine's manifest decides; a checkpoint is PyTorch's; an .onnx file runs on the one asked for, else on the one its INT8
    placement was made for where that can run on this processor, else on ONNX Runtime.

    Raises:
        UnknownNameError: no backend of the name asked for.
        InputError: the artifact cannot run on the one asked for.
        EngineError: neither an .onnx file nor an engine with its manifest.
        ModelError: the manifest cannot be read.
    """
    if asked is not None and asked not in BACKENDS:
        raise UnknownNameError.of("backend", asked, _PUBLIC, f"backends: {', '.join(_PUBLIC)}")
    if artifact.name.split(":")[0] == "fake":
        return _agreed(artifact, "fake", asked)
    if artifact.suffix.lower() in CHECKPOINTS:
        return _agreed(artifact, "torch", asked)
    manifest = read_manifest(artifact, verify=False)
    if manifest is not None and manifest.kind == "engine":
        if manifest.backend not in BACKENDS:
            raise ModelError(
                f"{manifest_path(artifact)}: names a backend that there is not: '{manifest.backend}'", "build the engine again"
            )
        return _agreed(artifact, manifest.backend, asked)
    if manifest is None and artifact.suffix.lower() != ".onnx" and artifact.exists():
        raise EngineError(
            f"{artifact}: is neither an .onnx file nor an engine with its manifest",
            f"copy {artifact.name}.manifest.json along with an engine, or name the .onnx file",
        )
    if asked in ("torch", "fake"):
        raise InputError(f"{artifact}: backend '{asked}' does not run ONNX files", f"use --backend {DEFAULT} or openvino")
    if asked is not None:
        return asked
    placed = manifest.backend if manifest else None
    return placed if placed in BACKENDS and not BACKENDS[placed].gpu and _status(placed).reason is None else DEFAULT


def _agreed(artifact: Path, owner: str, asked: str | None) -> str:
    if asked not in (None, owner):
        what = {"fake": "a fake", "torch": "a checkpoint of backend 'torch'"}.get(owner, f"an engine of backend '{owner}'")
        raise InputError(f"{artifact}: is {what}, not for backend '{asked}'", f"use --backend {owner}, or another artifact")
    return owner
