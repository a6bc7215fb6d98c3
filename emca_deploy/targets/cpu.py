"""The processor of this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from emca_deploy._machine import default_threads
from emca_deploy.artifacts import Precision
from emca_deploy.backends.registry import BACKENDS, CPU_BACKENDS, get_builder
from emca_deploy.errors import UnknownNameError
from emca_deploy.harness.measure.protocol import FEWEST_PROCESSES
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.requests import BuildRequest, Request
from emca_deploy.targets.candidates import CandidateOptions, processor_ways, run_notes
from emca_deploy.targets.deployment import BuildStep, BuiltCandidate, Deployment, Models
from emca_deploy.targets.local import LocalTarget, candidates_of

__all__ = ["CpuTarget"]


@dataclass(frozen=True)
class CpuTarget(LocalTarget):
    """The processor of this machine."""

    name: str = "cpu"
    kind: ClassVar[str] = "cpu"
    processes: ClassVar[int] = 8
    """Processes of one file differ by some percent; with four, its ratio to itself was off by 2 % in 2 of 7 runs
    (benchmarks/LOG.md)."""

    @classmethod
    def parse(cls, text: str) -> "CpuTarget":
        """Return the only target of this kind; see `Target.parse`."""
        if text != cls.kind:
            raise UnknownNameError.of("target", text, ("cpu",), "the processor has no index; --threads takes fewer cores")
        return cls()

    def ways(self, path: str, backends: Sequence[str], options: CandidateOptions) -> list[RunnerSpec]:
        """Return a file on each backend; see `LocalTarget.ways`."""
        return processor_ways(path, backends, options)

    def notes(self, request: Request) -> tuple[str, ...]:
        """Return notes on artifacts that run with tuned settings, or saturate on this processor."""
        return () if isinstance(request, BuildRequest) else run_notes(*candidates_of(self, request))

    def deployment(self, backends: Sequence[str] = ()) -> Deployment:
        """Return an fp32 and an INT8 engine for every backend, first all fp32 ones; see `Target.deployment`."""
        fitting = [name for name in backends or CPU_BACKENDS if BACKENDS[name].builder and not BACKENDS[name].needs_gpu]
        for backend in fitting:
            get_builder(backend)  # refuses what is not installed
        precisions: tuple[Precision, ...] = ("fp32", "int8")
        steps = (
            BuildStep(f"{name} {precision}", name, precision, f"{name}-{precision}{BACKENDS[name].engine_suffix}")
            for precision in precisions
            for name in fitting
            if precision != "int8" or BACKENDS[name].recipe
        )
        return Deployment(self.name, tuple(fitting), tuple(steps), FEWEST_PROCESSES)

    def deployed(self, step: BuildStep, path: Path, models: Models, threads: int | None) -> list[BuiltCandidate]:
        """Return the candidate for an engine; its idle threads sleep, to not disturb other candidates."""
        used = threads or default_threads()
        arguments = {"backend": step.backend, "artifact": str(path), "threads": used, "spin": False}
        spec = RunnerSpec(
            step.name, kwargs=arguments, artifact=str(path), backend=step.backend, precision=step.precision or "fp32"
        )
        return [BuiltCandidate(step.name, path, spec)]
