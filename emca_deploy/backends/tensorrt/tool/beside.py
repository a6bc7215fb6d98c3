"""tegrastats during a run of trtexec: the board's power, load and temperature while the engine runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from emca_deploy.backends.tensorrt.tool.process import Spawn, reading, spawn_here
from emca_deploy.machines.jetson.rails import total_power_mw
from emca_deploy.results.telemetry import TelemetryResult
from emca_deploy.telemetry.attribution import attribute
from emca_deploy.telemetry.recorder import Sample
from emca_deploy.telemetry.tegrastats import parse_line
from emca_deploy.telemetry.tegrastats_source import reading_of

__all__ = ["Beside"]

BEGINS, ENDS = "Starting inference", "=== Trace details ==="
"""Texts that trtexec prints, and flushes at once, just before its warm-up and just after the last query."""
SOURCE, ENGINE = "tegrastats", "engine"
INTERVAL_MS = 100


class Beside:
    """tegrastats on the machine where `spawn` starts commands, and the time in which the engine ran."""

    def __init__(self, spawn: Spawn = spawn_here, command: tuple[str, ...] = ("tegrastats",)) -> None:
        self._spawn, self._command = spawn, command
        self._begin_ns = self._end_ns = 0
        self._samples: list[Sample] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run tegrastats until the block ends, if the machine has it."""
        try:
            process = self._spawn([*self._command, "--interval", str(INTERVAL_MS)])
        except OSError:  # no Jetson, or not on the PATH
            yield
            return
        with reading(process, self._sample):
            yield

    def line(self, text: str) -> None:
        """Take a line that trtexec has just printed."""
        if BEGINS in text:
            self._begin_ns = time.monotonic_ns()
        elif ENDS in text:
            self._end_ns = time.monotonic_ns()

    def _sample(self, text: str) -> None:
        sample = parse_line(text)
        if not sample.is_empty:
            self._samples.append(Sample(time.monotonic_ns(), SOURCE, reading_of(sample, total_power_mw)))

    def telemetry(self, images_per_s: float) -> TelemetryResult:
        """Return the telemetry of a result, empty where tegrastats printed nothing while the engine ran.

        The window starts with trtexec's warm-up, whose queries are not exported: the number of its images follows from its
        length and the throughput.
        """
        window = (self._begin_ns, self._end_ns)
        images = round(images_per_s * (self._end_ns - self._begin_ns) / 1e9)
        sources = attribute(self._samples, {ENGINE: [window]}, inferences={ENGINE: images})[ENGINE]
        return TelemetryResult(sources, interval_ms=float(INTERVAL_MS)) if sources else TelemetryResult()
