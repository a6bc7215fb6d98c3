"""An NVIDIA GPU of this machine."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from emca_deploy.errors import InputError, MissingError
from emca_deploy.harness.measure.hook import available_sources
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.targets.candidates import CandidateOptions
from emca_deploy.targets.gpu_candidates import check_gpu, gpu_candidate, gpu_candidates
from emca_deploy.targets.local import Held, LocalTarget
from emca_deploy.telemetry.nvml import NvmlSource

__all__ = ["GpuTarget"]

_FORM = re.compile(r"gpu(?::(\d{1,3}))?$")


@dataclass(frozen=True)
class GpuTarget(LocalTarget):
    """An NVIDIA GPU of this machine.

    Attributes:
        device: its index, as CUDA counts.
    """

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

    def candidates(self, artifacts: Sequence[str], backends: Sequence[str], options: CandidateOptions) -> tuple[RunnerSpec, ...]:
        """Return every artifact in every way that it runs on this GPU; see `LocalTarget.candidates`."""
        return gpu_candidates(artifacts, backends, options, self.device)

    def candidate(self, artifact: str, backend: str | None, options: CandidateOptions) -> RunnerSpec:
        """Return one artifact in the first way that it runs on this GPU; see `LocalTarget.candidate`."""
        return gpu_candidate(artifact, backend, options, self.device)

    @contextmanager
    def hold(self, power_mode: str | None = None) -> Iterator[Held]:
        """Yield the GPU, with its driver and its telemetry before the run; after it also that after the run.

        Telemetry that cannot be read is absent, with the reason.

        Args:
            power_mode: None; a GPU has none.

        Raises:
            MissingError: there is no such GPU.
        """
        del power_mode
        facts = check_gpu(self.device)
        found: dict[str, Any] = facts.to_dict()
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
