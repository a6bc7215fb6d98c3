"""This machine as a Jetson board: its GPU for TensorRT, and its processor."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from emca_deploy.artifacts import read_manifest
from emca_deploy.backends.records import DEFAULT, names_where
from emca_deploy.backends.registry import BACKENDS
from emca_deploy.errors import InputError, MissingError
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.jetson.facts import check_dla_core
from emca_deploy.machines.jetson.session import annotate_report, board_session, board_sources, check_board
from emca_deploy.requests import BuildRequest, Request
from emca_deploy.results.latency import ProfileReport
from emca_deploy.targets.candidates import CandidateOptions
from emca_deploy.targets.cpu import CpuTarget
from emca_deploy.targets.deployment import BuildStep, BuiltCandidate, Deployment, Models
from emca_deploy.targets.gpu import GpuTarget
from emca_deploy.targets.local import Held, LocalTarget

__all__ = ["JetsonTarget"]

CPU_BACKEND, GPU_BACKEND = DEFAULT, names_where(trtexec=True)[0]


@dataclass(frozen=True)
class JetsonTarget(LocalTarget):
    """This Jetson board."""

    name: str = "jetson"
    kind: ClassVar[str] = "jetson"
    has_power_modes: ClassVar[bool] = True

    @classmethod
    def parse(cls, text: str) -> "JetsonTarget":
        """Return the only target of this kind; see `Target.parse`."""
        if text != cls.kind:
            raise InputError(f"target '{text}' has an index", "use jetson, which includes the board's GPU and processor")
        return cls()

    def check(self, request: Request) -> None:
        """Also refuse an engine for a DLA core that this board lacks; see `Target.check`."""
        super().check(request)
        if isinstance(request, BuildRequest) and request.choices.dla_core is not None:
            check_dla_core(check_board(), request.choices.dla_core)

    def ways(self, path: str, backends: Sequence[str], options: CandidateOptions) -> list[RunnerSpec]:
        """Return a file on each backend: TensorRT runs on the GPU, all else on the processor; see `LocalTarget.ways`."""
        found: list[RunnerSpec] = []
        for backend in backends or (None,):
            part = GpuTarget() if _runs_on_gpu(path, backend) else CpuTarget()
            found.append(replace(part.candidate(path, backend, options), name=path, target=self.name))
        return found

    @contextmanager
    def hold(self, power_mode: str | None = None) -> Iterator[Held]:
        """Yield the board in a power mode; see `board_session`. A mode that cannot be restored is only a warning."""
        finished: dict[str, Any] | None = None
        try:
            with board_session(power_mode) as record:
                yield Held({"board": record}, record["warnings"], record["notes"], board_sources)
                finished = record
        except MissingError as exc:
            if finished is None:
                raise
            finished["warnings"].append(f"{exc.problem}: {exc.remedy}")

    def annotate(self, report: ProfileReport, record: Mapping[str, Any]) -> ProfileReport:
        """Return the report with the board's warnings."""
        return annotate_report(report, record["board"])

    def deployment(self, backends: Sequence[str] = ()) -> Deployment:
        """Return ONNX Runtime on the processor, whose fp32 is the baseline, and TensorRT on the GPU, if it is installed."""
        check_board()
        on_gpu = [name for name in backends if BACKENDS[name].needs_gpu]
        on_processor = [name for name in backends if name not in on_gpu] if backends else [CPU_BACKEND]
        parts = [CpuTarget().deployment(on_processor)] if on_processor else []
        notes = []
        if on_gpu or not backends:
            try:
                parts.append(GpuTarget().deployment(on_gpu or [GPU_BACKEND]))
            except MissingError as exc:
                if on_gpu:
                    raise
                notes.append(f"nothing was measured on the GPU: {exc.problem}: {exc.remedy}")
        found = tuple(name for part in parts for name in part.backends)
        return Deployment(self.name, found, tuple(step for part in parts for step in part.steps), notes=tuple(notes))

    def deployed(self, step: BuildStep, path: Path, models: Models, threads: int | None) -> list[BuiltCandidate]:
        """Return the candidates for a file on the GPU or the processor of this board."""
        part = GpuTarget() if BACKENDS[step.backend].needs_gpu else CpuTarget()
        found = part.deployed(step, path, models, threads)
        return [replace(one, spec=replace(one.spec, target=self.name)) for one in found]


def _runs_on_gpu(artifact: str, backend: str | None) -> bool:
    if backend is None:
        manifest = read_manifest(Path(artifact), verify=False)
        backend = manifest.backend if manifest is not None and manifest.kind == "engine" else None
    return backend in BACKENDS and BACKENDS[backend].needs_gpu
