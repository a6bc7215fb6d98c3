"""tegrastats beside a run of trtexec: the board's power, load and temperature while the engine runs."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from emca_deploy.backends.tensorrt.tool.process import Spawn, reading, spawn_here
from emca_deploy.machines.jetson.rails import total_power_mw
from emca_deploy.results.telemetry import TelemetryResult
from emca_deploy.telemetry.attribution import attribute
from emca_deploy.telemetry.recorder import Sample
from emca_deploy.telemetry.tegrastats import parse_line
from emca_deploy.telemetry.tegrastats_source import reading_of

__all__ = ["Beside", "Watch", "watching"]

BEGINS, ENDS = "Starting inference", "=== Trace details ==="
"""What trtexec prints just before its warm-up and just after the last query, flushed at once."""
SOURCE, ENGINE = "tegrastats", "engine"


@dataclass(frozen=True)
class Beside:
    """What to start beside trtexec.

    Attributes:
        spawn: starts it on the same machine.
        interval_ms: between its lines.
        command: whose lines are tegrastats'.
    """

    spawn: Spawn = spawn_here
    interval_ms: int = 100
    command: tuple[str, ...] = ("tegrastats",)


class Watch:
    """Samples of tegrastats, `interval_ms` apart, and when the engine ran."""

    def __init__(self, interval_ms: int = 0) -> None:
        self._interval_ms = interval_ms
        self._begin_ns = self._end_ns = 0
        self._samples: list[Sample] = []

    def line(self, text: str) -> None:
        """Take a line that trtexec printed just now."""
        if BEGINS in text:
            self._begin_ns = time.monotonic_ns()
        elif ENDS in text:
            self._end_ns = time.monotonic_ns()

    def sample(self, text: str) -> None:
        """Take a line that tegrastats printed just now."""
        sample = parse_line(text)
        if not sample.is_empty:
            self._samples.append(Sample(time.monotonic_ns(), SOURCE, reading_of(sample, total_power_mw)))

    def telemetry(self, images_per_s: float) -> TelemetryResult:
        """Return the telemetry of a result, empty where tegrastats reported nothing meanwhile.

        The window begins with trtexec's warm-up, whose queries it does not export, so the images of the window follow from its
        length and the run's throughput.
        """
        window = (self._begin_ns, self._end_ns)
        images = round(images_per_s * (self._end_ns - self._begin_ns) / 1e9)
        sources = attribute(self._samples, {ENGINE: [window]}, inferences={ENGINE: images})[ENGINE]
        return TelemetryResult(sources, interval_ms=float(self._interval_ms)) if sources else TelemetryResult()


@contextmanager
def watching(beside: Beside | None) -> Iterator[Watch]:
    """Run tegrastats, if it is wanted and there, until the block ends."""
    watch = Watch(beside.interval_ms if beside is not None else 0)
    process = _start(beside) if beside is not None else None
    if process is None:
        yield watch
        return
    with reading(process, watch.sample):
        yield watch


def _start(beside: Beside) -> "subprocess.Popen[bytes] | None":
    try:
        return beside.spawn([*beside.command, "--interval", str(beside.interval_ms)])
    except OSError:  # no Jetson, or not on the PATH
        return None
