"""What a run of the benchmark was asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from emca_deploy._machine import cpu_info
from peers.candidates import Candidate
from peers.store import Row, Store, code_identity

__all__ = ["Run"]


@dataclass
class Run:
    """A run: its settings, what was kept of earlier ones, and where it tells how it goes.

    Attributes:
        archs: only these architectures; a part's own choice where empty.
        levels: of recovery; [None] where calibration has none.
        images: for calibration.
        limit: of test images; None for all.
        threads: of everything.
        memory_mib: the most that one quantization may take.
        only: name patterns; candidates that match none are left out.
        folder: for everything in between.
        tell: prints a line for people.
        data: folder of Fashion-MNIST.
        checkpoints: folder of trained networks.
        image_size: pixels that those were trained at.
        duration_s: of measuring the latency of each candidate.
        cost_images: few and many, that calibration is timed with.
        repeats: of timing it with few.
        rows: what was measured or found.
    """

    store: Store
    folder: Path
    archs: list[str]
    levels: list[str | None]
    images: int
    limit: int | None
    threads: int
    memory_mib: float
    only: list[str]
    tell: Callable[[str], None]
    data: Path
    checkpoints: Path | None = None
    image_size: int = 48
    duration_s: float = 10.0
    cost_images: tuple[int, int] = (100, 800)
    repeats: int = 3
    rows: list[Row] = field(default_factory=list)

    def chosen(self, candidates: list[Candidate]) -> list[Candidate]:
        """Return the candidates that were asked for."""
        return [c for c in candidates if not self.only or any(fnmatchcase(c.name, pattern) for pattern in self.only)]

    def made_from(self, candidate: Candidate, **more: Any) -> dict[str, Any]:
        """Return what a candidate's figures depend on, besides `more`."""
        rooms = ("export", "models", "calibration") if candidate.method == "ours" else ("export", "models")
        return {
            "method": candidate.method,
            "arguments": candidate.arguments,
            "versions": candidate.versions(),
            "code": code_identity(*rooms),
            "threads": self.threads,
            "cpu": cpu_info().model,
            **more,
        }
