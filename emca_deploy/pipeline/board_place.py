"""A Jetson board as a place of `deploy`: its processor, and its GPU where TensorRT can be used."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from emca_deploy.backends.registry import BACKENDS
from emca_deploy.errors import MissingError
from emca_deploy.machines.jetson.session import annotate_report, board_session, check_board
from emca_deploy.pipeline.places import Candidate, CpuPlace, GpuPlace, Models, Place, Step
from emca_deploy.results.latency import ProfileReport

__all__ = ["JetsonPlace"]

CPU_BACKEND, GPU_BACKEND = "onnxruntime", "tensorrt"


@dataclass(frozen=True)
class JetsonPlace(Place):
    """This board: ONNX Runtime on its processor, whose fp32 is the baseline, and TensorRT on its GPU.

    Attributes:
        processor: what runs there.
        gpu: what runs there; None where nothing can, or nothing that does was asked for.
        missing: why `gpu` is None although nobody asked for that.
    """

    processor: CpuPlace
    gpu: GpuPlace | None = None
    missing: str = ""

    @classmethod
    def find(cls, target: str, asked: Sequence[str]) -> "JetsonPlace":
        """See that this is a board. Without TensorRT only its processor is used, unless TensorRT is asked for.

        Raises:
            MissingError: it is none, or a backend that was asked for is missing.
        """
        check_board()
        on_gpu = [name for name in asked if BACKENDS[name].needs_gpu]
        on_processor = [name for name in asked if name not in on_gpu] if asked else [CPU_BACKEND]
        # Without a name CpuPlace would take all of its own.
        processor = CpuPlace.find("cpu", on_processor) if on_processor else CpuPlace("cpu", ())
        gpu, missing = None, ""
        if on_gpu or not asked:
            try:
                gpu = GpuPlace.find("gpu", on_gpu or [GPU_BACKEND])
            except MissingError as exc:
                if on_gpu:
                    raise
                missing = f"nothing was measured on the GPU: {exc.problem}: {exc.remedy}"
        return cls(target, (*processor.backends, *(gpu.backends if gpu else ())), processor, gpu, missing)

    @property
    def placements(self) -> tuple[str, ...]:
        """Backends whose INT8 model is needed: all."""
        return (*self.processor.placements, *(self.gpu.placements if self.gpu else ()))

    @property
    def needs_half(self) -> bool:
        """Whether the fp16 model is needed: by TensorRT."""
        return self.gpu is not None and self.gpu.needs_half

    def steps(self, models: Models, threads: int) -> list[Step]:
        """Return what is built for the processor, then for the GPU."""
        steps = [*self.processor.steps(models, threads), *(self.gpu.steps(models, threads) if self.gpu else ())]
        return [_here(step) for step in steps]

    @contextmanager
    def record(self) -> Iterator[dict[str, Any]]:
        """Yield the board, its power mode and clocks."""
        with board_session() as session:
            if self.missing:
                session.record["notes"].append(self.missing)
                session.record["warnings"].append(self.missing)
            yield {"board": session.record}

    def annotate(self, profile: ProfileReport, record: Mapping[str, Any]) -> ProfileReport:
        """Return the report with what the board's state makes doubtful."""
        return annotate_report(profile, record["board"])


def _here(step: Step) -> Step:
    def build() -> list[Candidate]:
        return [replace(candidate, spec=replace(candidate.spec, target="jetson")) for candidate in step()]

    return build
