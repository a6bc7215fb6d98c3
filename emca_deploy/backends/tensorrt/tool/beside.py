"""tegrastats beside a run of trtexec: the board's power, load and temperature while the engine runs."""

import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from emca_deploy.backends.tensorrt.tool.process import Spawn, spawn_here, stop
from emca_deploy.machines.jetson.rails import total_power_mw
from emca_deploy.telemetry.tegrastats import TegrastatsSample, parse_line

__all__ = ["Beside", "Watch", "watching"]

BEGINS, ENDS = "Starting inference", "=== Trace details ==="
"""What trtexec prints just before its warm-up and just after the last query, flushed at once."""


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
    """Samples of tegrastats, those that came while an engine ran."""

    def __init__(self) -> None:
        self._running = False
        self._samples: list[TegrastatsSample] = []

    def line(self, text: str) -> None:
        """Take a line of trtexec's, which says when the engine runs."""
        if BEGINS in text:
            self._running = True
        elif ENDS in text:
            self._running = False

    def sample(self, text: str) -> None:
        """Take a line of tegrastats'."""
        if self._running:
            sample = parse_line(text)
            if not sample.is_empty:
                self._samples.append(sample)

    def summary(self) -> dict[str, Any]:
        """Return means and peaks for the result; nothing where there was no tegrastats. What it did not say is absent."""
        if not self._samples:
            return {}
        rails = _by_name([sample.power_mw for sample in self._samples])
        heat = _by_name([sample.temperature_c for sample in self._samples])
        load = [sample.gpu_load_percent for sample in self._samples if sample.gpu_load_percent is not None]
        totals = [total for sample in self._samples if (total := total_power_mw(sample.power_mw)) is not None]
        memory = [sample.ram_used_mib for sample in self._samples if sample.ram_used_mib is not None]
        found = {
            "samples": len(self._samples),
            "power_mw": {name: {"mean": fmean(values), "max": max(values)} for name, values in rails.items()},
            # The whole board's, no rail counted twice; absent where the rails do not say.
            **({"total_power_mw": {"mean": fmean(totals), "max": max(totals)}} if totals else {}),
            "temperature_c": {name: max(values) for name, values in heat.items()},
            **({"gpu_load_percent": fmean(load)} if load else {}),
            **({"ram_used_mib": max(memory)} if memory else {}),
        }
        return {"tegrastats": found}


@contextmanager
def watching(beside: Beside | None) -> Iterator[Watch]:
    """Run tegrastats, if it is wanted and there, until the block ends."""
    watch = Watch()
    process = _start(beside) if beside is not None else None
    if process is None:
        yield watch
        return
    reader = threading.Thread(target=_collect, args=(process, watch), daemon=True)
    reader.start()
    try:
        yield watch
    finally:
        stop(process)
        reader.join(5.0)


def _start(beside: Beside) -> "subprocess.Popen[bytes] | None":
    try:
        return beside.spawn([*beside.command, "--interval", str(beside.interval_ms)])
    except OSError:  # no Jetson, or not on the PATH
        return None


def _collect(process: "subprocess.Popen[bytes]", watch: Watch) -> None:
    assert process.stdout is not None  # a Spawn gives a pipe
    with process.stdout as pipe:
        for raw in pipe:
            watch.sample(raw.decode("utf-8", errors="replace"))


def _by_name(samples: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in sample.items():
            found.setdefault(name, []).append(value)
    return found
