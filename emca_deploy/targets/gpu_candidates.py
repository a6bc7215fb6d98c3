"""Artifacts on an NVIDIA GPU of this machine: which backends run them, and in which variants."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emca_deploy._optional import has_cuda
from emca_deploy.artifacts import read_manifest
from emca_deploy.backends.records import names_where
from emca_deploy.backends.registry import BACKENDS, CHECKPOINTS, available, backend_of, names_no_file
from emca_deploy.backends.tensorrt.cuda import GpuFacts, capability_here, list_gpus
from emca_deploy.backends.tensorrt.runner_checks import check_profile, profile_of, read_engine
from emca_deploy.errors import InputError, MissingError
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.nvidia import check_rtx, rtx_refusal
from emca_deploy.targets.candidates import CandidateOptions
from emca_deploy.targets.named_artifacts import digests_of, precision_of

__all__ = [
    "check_gpu",
    "gpu_specs",
    "onnx_backends",
    "ways_to_run",
]

FACTORY = "emca_deploy.backends.registry:open_gpu_runner"
ENGINES = names_where(needs_gpu=True)


def check_gpu(index: int) -> GpuFacts:
    """Return a GPU of this machine.

    Raises:
        MissingError: cuda-bindings, the driver or that GPU is missing.
    """
    try:
        gpus = list_gpus()
    except MissingError as exc:
        raise MissingError(f"target 'gpu:{index}': {exc.problem}", exc.remedy) from exc
    if index >= len(gpus):
        raise MissingError(
            f"target 'gpu:{index}': CUDA sees {len(gpus)} here", f"use gpu:0 to gpu:{len(gpus) - 1}, or set CUDA_VISIBLE_DEVICES"
        )
    return gpus[index]


def gpu_specs(artifact: str, backends: Sequence[str], options: CandidateOptions, device: int = 0) -> list[RunnerSpec]:
    """Return one artifact in every way it can run on a GPU, whether there is one or not.

    Raises:
        EngineError, InputError: it is an engine that is damaged, or not for that batch.
        InputError, MissingError: as `ways_to_run`.
    """
    ways = ways_to_run(Path(artifact), backends, device)
    manifest = read_manifest(Path(artifact), verify=False)
    if manifest is not None and manifest.kind == "engine":
        _, found = read_engine(Path(artifact), ways[0][0])
        if options.batch is not None:
            check_profile(Path(artifact), profile_of(found), options.batch)
    return [_spec(artifact, way, options, device) for way in ways]


def ways_to_run(artifact: Path, asked: Sequence[str], index: int = 0) -> list[tuple[str, str]]:
    """Return (backend, variant) of all that runs an artifact on a GPU; the variant is empty but for torch.

    An engine of TensorRT runs as it is. A checkpoint runs on torch in every variant. An .onnx file runs on TensorRT, or
    TensorRT-RTX where that is not here, which build it first, and on ONNX Runtime's CUDA provider.

    Without `asked` every backend that can run the file does.

    Raises:
        InputError: there is no such file, or it runs on no GPU.
        MissingError: what would run it is not here.
    """
    if names_no_file(str(artifact)):
        raise InputError(f"{artifact}: is a fake, which runs on no GPU", "use --target cpu")
    if not artifact.is_file():
        raise InputError(f"{artifact}: no such file", "name an .onnx file, an engine with its manifest, or a checkpoint")
    if artifact.suffix.lower() in CHECKPOINTS:
        owner = backend_of(artifact, asked[0] if asked else None)
        return [(owner, variant) for variant in BACKENDS[owner].variants or ("",)]
    manifest = read_manifest(artifact, verify=False)
    if manifest is not None and manifest.kind == "engine":
        owner = backend_of(artifact, asked[0] if asked else None)
        if owner not in ENGINES:
            raise InputError(
                f"{artifact}: is an engine of backend '{owner}', for a processor", "use --target cpu, or another engine"
            )
        return [(owner, "")]
    if not asked:
        backend_of(artifact, None)  # refuses what is neither
    for backend in asked:
        backend_of(artifact, backend)
        if not BACKENDS[backend].on_gpu:
            raise InputError(
                f"backend '{backend}' does not run on a GPU",
                f"use one of: {', '.join(names_where(on_gpu=True, checkpoints=False))}",
            )
    return [(backend, "") for backend in (asked or onnx_backends(index))]


def onnx_backends(index: int = 0) -> list[str]:
    """Return what runs ONNX files on a GPU here: TensorRT, else TensorRT-RTX, and ONNX Runtime where it has CUDA.

    TensorRT-RTX is left out where it has no kernels for the GPU of that index.

    Raises:
        MissingError: nothing does.
    """
    installed = [name for name in ENGINES if available()[name].version is not None][:1]
    as_they_are = _onnx_with_cuda()
    if installed and BACKENDS[installed[0]].names_capability and rtx_refusal(capability := capability_here(index)) is not None:
        if not as_they_are:
            check_rtx(capability)
        installed = []
    installed += as_they_are
    if not installed:
        raise MissingError(
            "nothing that runs .onnx files on a GPU is installed", "pip install 'emca-deploy[tensorrt-rtx]', or onnxruntime-gpu"
        )
    return installed


def _onnx_with_cuda() -> list[str]:
    """Return the backends that run .onnx files as they are, on a GPU too, and are installed in a build for CUDA."""
    names = names_where(on_gpu=True, reads_onnx=True)
    return [name for name in names if (package := BACKENDS[name].package) is not None and has_cuda(package)]


def _spec(artifact: str, way: tuple[str, str], options: CandidateOptions, device: int) -> RunnerSpec:
    backend, variant = way
    if options.precision != "f32":
        raise InputError(f"--precision {options.precision} is for processors", "on a GPU an engine's model has its precision")
    precision: str = (
        "fp16" if "fp16" in variant.split() else precision_of(Path(artifact), read_manifest(Path(artifact), verify=False))
    )
    kwargs = {"backend": backend, "artifact": artifact, "device": device, "batch": options.batch, "variant": variant}
    name = f"{backend}{f' {variant}' if variant else ''}={artifact}"
    spec = RunnerSpec(name, FACTORY, kwargs, artifact, backend, precision, f"gpu:{device}")
    return replace(spec, digests=digests_of(Path(artifact)))
