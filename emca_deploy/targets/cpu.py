"""The processor of this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from emca_deploy.errors import UnknownNameError
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.requests import BuildRequest, Request
from emca_deploy.targets.candidates import CandidateOptions, candidate, candidates, run_notes
from emca_deploy.targets.local import LocalTarget, candidates_of

__all__ = ["CpuTarget"]


@dataclass(frozen=True)
class CpuTarget(LocalTarget):
    """The processor of this machine."""

    name: str = "cpu"
    kind: ClassVar[str] = "cpu"
    processes: ClassVar[int] = 8
    """Processes that live side by side differ by some percent, and with four the ratio of one file to itself was off by 2 % in
    2 tries of 7 (docs/benchmarks.md)."""

    @classmethod
    def parse(cls, text: str) -> "CpuTarget":
        """Return the target; there is only one.

        Raises:
            UnknownNameError: the text is not "cpu".
        """
        if text != cls.kind:
            raise UnknownNameError.of("target", text, ("cpu",), "the processor has no index; --threads takes fewer cores")
        return cls()

    def candidates(self, artifacts: Sequence[str], backends: Sequence[str], options: CandidateOptions) -> tuple[RunnerSpec, ...]:
        """Return every artifact on every backend; see `LocalTarget.candidates`.

        With several candidates the runtimes' idle threads do not spin, so that one does not disturb another.
        """
        return candidates(artifacts, backends, options)

    def candidate(self, artifact: str, backend: str | None, options: CandidateOptions) -> RunnerSpec:
        """Return one artifact as a candidate; see `LocalTarget.candidate`."""
        return candidate(artifact, backend, options)

    def notes(self, request: Request) -> tuple[str, ...]:
        """Return which artifacts run with tuned settings, or saturate on this processor."""
        return () if isinstance(request, BuildRequest) else run_notes(*candidates_of(self, request))
