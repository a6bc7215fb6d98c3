"""An NVIDIA GPU of this machine."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from emca_deploy.artifacts import Precision
from emca_deploy.backends.records import names_where
from emca_deploy.backends.registry import BACKENDS, get_builder
from emca_deploy.backends.tensorrt.cuda import list_gpus
from emca_deploy.errors import InputError, MissingError
from emca_deploy.harness.measure.hook import available_sources
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.nvidia import check_rtx
from emca_deploy.results.codec import to_json
from emca_deploy.targets.candidates import CandidateOptions
from emca_deploy.targets.capabilities import Lack
from emca_deploy.targets.deployment import BuildStep, BuiltCandidate, Deployment, Models
from emca_deploy.targets.gpu_candidates import check_gpu, gpu_specs, onnx_backends
from emca_deploy.targets.local import Held, LocalTarget
from emca_deploy.telemetry.nvml import NvmlSource

__all__ = ["GpuTarget", "gpu_steps"]

_FORM = re.compile(r"gpu(?::(\d{1,3}))?$")


@dataclass(frozen=True)
class GpuTarget(LocalTarget):
    """An NVIDIA GPU of this machine; `device` is its index, as CUDA counts."""

    name: str = "gpu:0"
    device: int = 0
    kind: ClassVar[str] = "gpu"
    builds: ClassVar[bool] = False
    load_together: ClassVar[bool] = True

    @classmethod
    def parse(cls, text: str) -> "GpuTarget":
        """Return the GPU that "gpu" or "gpu:1" names.

        Raises:
            InputError: the text is not of that form.
        """
        match = _FORM.match(text)
        if match is None:
            raise InputError(f"target '{text}' names no GPU", "use gpu, or gpu:1 for the second one")
        device = int(match[1] or 0)
        return cls(f"gpu:{device}", device)

    def ways(self, path: str, backends: Sequence[str], options: CandidateOptions) -> list[RunnerSpec]:
        """Return a file in every way that it runs on this GPU; see `LocalTarget.ways`."""
        return gpu_specs(path, backends, options, self.device)

    def candidates(self, artifacts: Sequence[str], backends: Sequence[str], options: CandidateOptions) -> tuple[RunnerSpec, ...]:
        """Return every artifact in every way that it runs on this GPU, which is looked for last; see `LocalTarget.candidates`."""
        found = super().candidates(artifacts, backends, options)
        check_gpu(self.device)
        return found

    def lacks(self) -> tuple[Lack, ...]:
        """Return why this GPU cannot be used."""
        try:
            count = len(list_gpus())
        except MissingError as exc:
            return (Lack(exc.problem, exc.remedy),)
        missing = Lack(f"there is no GPU {self.device} here, only {count}", "`emca-deploy doctor` lists them")
        return () if self.device < count else (missing,)

    @contextmanager
    def hold(self, power_mode: str | None = None) -> Iterator[Held]:
        """Yield the GPU, with its driver and its telemetry before the run; after it also that after the run.

        Telemetry that cannot be read is absent, with the reason.

        Raises:
            MissingError: there is no such GPU.
        """
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
        """Return PyTorch as it is, engines in fp32, fp16 and INT8, and ONNX Runtime in fp32 and fp16; see `Target.deployment`."""
        try:
            capability = check_gpu(self.device).capability
        except MissingError as exc:  # in words of this command
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
        specs = gpu_specs(str(path), [step.backend], CandidateOptions(batch=1), self.device)
        named = [replace(spec, name=f"{step.name} {spec.kwargs['variant']}".rstrip()) for spec in specs]
        if step.precision is None:
            details = {"image_size": models.image_size, **models.chosen}
            given = ("artifact", "device", "batch", "variant")
            named = [
                replace(
                    spec,
                    factory=BACKENDS[step.backend].open_at_size,
                    kwargs={**{name: spec.kwargs[name] for name in given}, **details},
                )
                for spec in named
            ]
        return [BuiltCandidate(spec.name, path, spec) for spec in named]


def gpu_steps(backends: Sequence[str], capability: str, device: int = 0) -> tuple[BuildStep, ...]:
    """Return what is built for a GPU. Its compute capability is for example "8.9"."""
    number = f"-gpu{device}" if device else ""
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    steps = [BuildStep(name, name, None) for name in backends if BACKENDS[name].open_at_size]
    for name in (name for name in backends if BACKENDS[name].needs_gpu):
        # TensorRT builds for the first GPU that it sees, TensorRT-RTX for the one that is named.
        named = (capability,) if BACKENDS[name].names_capability else ()
        steps += [
            BuildStep(f"{name} {precision}", name, precision, f"{name}-{precision}{number}{BACKENDS[name].engine_suffix}", named)
            for precision in precisions
        ]
    for name in (name for name in backends if BACKENDS[name].reads_onnx):  # no INT8 kernels on GPUs: Q/DQ would only cost
        steps += [BuildStep(f"{name}-cuda {precision}", name, precision) for precision in precisions[:2]]
    return tuple(steps)
