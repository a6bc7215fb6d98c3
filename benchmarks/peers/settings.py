"""Settings of a run of the benchmark."""

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
    """A run: its settings, the results of earlier runs, and the function that reports progress.

    Attributes:
        archs: Architectures; empty for each part's own choice.
        levels: Levels of recovery; [None] where calibration has none.
        images: Number of calibration images.
        limit: Maximum number of test images; None for all.
        threads: Number of threads of every runtime and quantizer.
        memory_mib: Memory limit of one quantization.
        only: Name patterns; other candidates are left out.
        folder: Folder for intermediate files.
        tell: Function that prints a line for people.
        data: Folder of Fashion-MNIST.
        checkpoints: Folder of trained networks.
        image_size: Image size of those networks, in pixels.
        duration_s: Measuring time of each candidate's latency.
        cost_images: The small and the large number of images that calibration is timed with.
        repeats: Number of timings with the small number.
        rows: Results measured now or earlier.
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
        """Return the selected candidates."""
        return [c for c in candidates if not self.only or any(fnmatchcase(c.name, pattern) for pattern in self.only)]

    def made_from(self, candidate: Candidate, **more: Any) -> dict[str, Any]:
        """Return what a candidate's figures depend on, including `more`."""
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
