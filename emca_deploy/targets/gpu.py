"""An NVIDIA GPU of this machine: which backends run an artifact on it, and in which variants."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from emca_deploy._optional import has_cuda
from emca_deploy.artifacts import Precision, read_manifest
from emca_deploy.backends.records import names_where
from emca_deploy.backends.registry import BACKENDS, CHECKPOINTS, available, backend_of, get_builder, names_no_file
from emca_deploy.backends.tensorrt.cuda import GpuFacts, capability_here, list_gpus
from emca_deploy.backends.tensorrt.runner_checks import check_profile, profile_of, read_engine
from emca_deploy.errors import InputError, MissingError
from emca_deploy.harness.measure.hook import available_sources
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.nvidia import check_rtx, rtx_refusal
from emca_deploy.results.codec import to_json
from emca_deploy.targets.candidates import CandidateOptions
from emca_deploy.targets.capabilities import Lack
from emca_deploy.targets.deployment import BuildStep, BuiltCandidate, Deployment, Models
from emca_deploy.targets.local import Held, LocalTarget
from emca_deploy.targets.named_artifacts import digests_of, precision_of
from emca_deploy.telemetry.nvml import NvmlSource

__all__ = ["GpuTarget", "check_gpu", "gpu_steps", "ways_to_run"]

_FORM = re.compile(r"gpu(?::(\d{1,3}))?$")
FACTORY = "emca_deploy.backends.registry:open_gpu_runner"
ENGINES = names_where(needs_gpu=True)


@dataclass(frozen=True)
class GpuTarget(LocalTarget):
    """An NVIDIA GPU of this machine; `device` is CUDA's index of it."""

    name: str = "gpu:0"
    device: int = 0
    kind: ClassVar[str] = "gpu"
    builds: ClassVar[bool] = False
    load_together: ClassVar[bool] = True

    @classmethod
    def parse(cls, text: str) -> "GpuTarget":
        """Return the GPU of "gpu" or "gpu:1"; see `Target.parse`."""
        match = _FORM.match(text)
        if match is None:
            raise InputError(f"target '{text}' names no GPU", "use gpu, or gpu:1 for the second one")
        device = int(match[1] or 0)
        return cls(f"gpu:{device}", device)

    def ways(self, path: str, backends: Sequence[str], options: CandidateOptions) -> list[RunnerSpec]:
        """Return a file in every way that it runs on this GPU; see `LocalTarget.ways`."""
        ways = ways_to_run(Path(path), backends, self.device)
        manifest = read_manifest(Path(path), verify=False)
        if manifest is not None and manifest.kind == "engine":
            _, found = read_engine(Path(path), ways[0][0])
            if options.batch is not None:
                check_profile(Path(path), profile_of(found), options.batch)
        return [_spec(path, way, options, self.device) for way in ways]

    def candidates(self, artifacts: Sequence[str], backends: Sequence[str], options: CandidateOptions) -> tuple[RunnerSpec, ...]:
        """Return every artifact in every way that it runs on this GPU, which must exist; see `LocalTarget.candidates`."""
        found = super().candidates(artifacts, backends, options)
        check_gpu(self.device)
        return found

    def lacks(self) -> tuple[Lack, ...]:
        """Return why this GPU cannot be used, if so."""
        try:
            count = len(list_gpus())
        except MissingError as exc:
            return (Lack(exc.problem, exc.remedy),)
        missing = Lack(f"there is no GPU {self.device}, only {count}", "`emca-deploy doctor` lists them")
        return () if self.device < count else (missing,)

    @contextmanager
    def hold(self, power_mode: str | None = None) -> Iterator[Held]:
        """Yield the GPU with its driver and its telemetry before and after the run, or the reason for none."""
        del power_mode
        facts = check_gpu(self.device)
        found: dict[str, Any] = to_json(facts)
        held = Held({"gpu": found}, sources=lambda: available_sources(gpu_bus_id=facts.bus_id))
        with ExitStack() as stack:
            try:
                source = stack.enter_context(NvmlSource(facts.bus_id))
            except MissingError as exc:
                found["telemetry_missing"] = exc.problem
                yield held
                return
            found["driver"] = source.driver
            found["telemetry"] = {"source": source.name, "before": source.read()}
            yield held
            found["telemetry"]["after"] = source.read()

    def deployment(self, backends: Sequence[str] = ()) -> Deployment:
        """Return PyTorch, engines in fp32, fp16 and INT8, and ONNX Runtime in fp32 and fp16; see `Target.deployment`."""
        try:
            capability = check_gpu(self.device).capability
        except MissingError as exc:  # `deploy` calls the option --targets
            raise MissingError(exc.problem, exc.remedy.replace("--target cpu", "--targets cpu")) from exc
        every = [*names_where(open_at_size=True), *(() if backends else onnx_backends(self.device))]
        fitting = [name for name in backends if BACKENDS[name].on_gpu] if backends else every
        if any(BACKENDS[name].names_capability for name in fitting):
            check_rtx(capability)
        for backend in fitting:
            if BACKENDS[backend].builder:
                get_builder(backend)  # refuses what is not installed
        return Deployment(self.name, tuple(fitting), gpu_steps(fitting, capability, self.device))

    def deployed(self, step: BuildStep, path: Path, models: Models, threads: int | None) -> list[BuiltCandidate]:
        """Return a file in every way that its backend runs it on this GPU, under a short name."""
        specs = self.ways(str(path), [step.backend], CandidateOptions(batch=1))
        named = [replace(spec, name=f"{step.name} {spec.kwargs['variant']}".rstrip()) for spec in specs]
        if step.precision is None:
            details = {"image_size": models.image_size, **models.chosen}
            given = ("artifact", "device", "batch", "variant")
            options = [{**{name: spec.kwargs[name] for name in given}, **details} for spec in named]
            opener = BACKENDS[step.backend].open_at_size
            named = [replace(spec, factory=opener, kwargs=kwargs) for spec, kwargs in zip(named, options, strict=True)]
        return [BuiltCandidate(spec.name, path, spec) for spec in named]


def gpu_steps(backends: Sequence[str], capability: str, device: int = 0) -> tuple[BuildStep, ...]:
    """Return what is built for a GPU of a compute capability such as "8.9"."""
    number = f"-gpu{device}" if device else ""
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    steps = [BuildStep(name, name, None) for name in backends if BACKENDS[name].open_at_size]
    for name in (name for name in backends if BACKENDS[name].needs_gpu):
        # TensorRT builds for the first GPU that it sees, TensorRT-RTX for a given compute capability.
        named = (capability,) if BACKENDS[name].names_capability else ()
        steps += [
            BuildStep(f"{name} {precision}", name, precision, f"{name}-{precision}{number}{BACKENDS[name].engine_suffix}", named)
            for precision in precisions
        ]
    for name in (name for name in backends if BACKENDS[name].reads_onnx):  # without INT8, for which there are no kernels
        steps += [BuildStep(f"{name}-cuda {precision}", name, precision) for precision in precisions[:2]]
    return tuple(steps)


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
            f"target 'gpu:{index}': CUDA sees {len(gpus)} GPUs", f"use gpu:0 to gpu:{len(gpus) - 1}, or set CUDA_VISIBLE_DEVICES"
        )
    return gpus[index]


def ways_to_run(artifact: Path, chosen: Sequence[str], index: int = 0) -> list[tuple[str, str]]:
    """Return (backend, variant) for every way to run an artifact on a GPU; only torch has variants.

    An engine of TensorRT runs directly. A checkpoint runs on torch in every variant. An .onnx file runs on the backends `chosen`,
    else on TensorRT or TensorRT-RTX, which build it first, and on ONNX Runtime's CUDA provider.

    Raises:
        InputError: there is no such file, or it does not run on a GPU.
        MissingError: the backend is not installed.
    """
    if names_no_file(str(artifact)):
        raise InputError(f"{artifact}: is a fake, which does not run on a GPU", "use --target cpu")
    if not artifact.is_file():
        raise InputError(f"{artifact}: no such file", "name an .onnx file, an engine with its manifest, or a checkpoint")
    if artifact.suffix.lower() in CHECKPOINTS:
        owner = backend_of(artifact, chosen[0] if chosen else None)
        return [(owner, variant) for variant in BACKENDS[owner].variants or ("",)]
    manifest = read_manifest(artifact, verify=False)
    if manifest is not None and manifest.kind == "engine":
        owner = backend_of(artifact, chosen[0] if chosen else None)
        if owner not in ENGINES:
            raise InputError(
                f"{artifact}: is an engine of backend '{owner}', for a processor", "use --target cpu, or another engine"
            )
        return [(owner, "")]
    if not chosen:
        backend_of(artifact, None)  # refuses other files
    for backend in chosen:
        backend_of(artifact, backend)
        if not BACKENDS[backend].on_gpu:
            raise InputError(
                f"backend '{backend}' does not run on a GPU",
                f"use one of: {', '.join(names_where(on_gpu=True, checkpoints=False))}",
            )
    return [(backend, "") for backend in (chosen or onnx_backends(index))]


def onnx_backends(index: int = 0) -> list[str]:
    """Return the installed backends that run ONNX files on a GPU: TensorRT, else TensorRT-RTX, and ONNX Runtime with CUDA.

    TensorRT-RTX is left out if it has no kernels for the GPU.

    Raises:
        MissingError: there is none.
    """
    installed = [name for name in ENGINES if available()[name].version is not None][:1]
    reading = names_where(on_gpu=True, reads_onnx=True)
    with_cuda = [name for name in reading if (package := BACKENDS[name].package) is not None and has_cuda(package)]
    if installed and BACKENDS[installed[0]].names_capability and rtx_refusal(capability := capability_here(index)) is not None:
        if not with_cuda:
            check_rtx(capability)
        installed = []
    installed += with_cuda
    if not installed:
        raise MissingError(
            "no backend for .onnx files on a GPU is installed",
            "pip install 'emca-deploy[tensorrt-rtx]', or onnxruntime-gpu",
        )
    return installed


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
