"""A Jetson's telemetry from its own tool: starts tegrastats for a run, and ends it with the run."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO

from emca_deploy.errors import MissingError
from emca_deploy.telemetry.source import Reading, TelemetrySource
from emca_deploy.telemetry.tegrastats import TegrastatsSample, parse_line

__all__ = ["TegrastatsSource", "TotalPower", "reading_of"]

TotalPower = Callable[[Mapping[str, float]], float | None]
"""Rails in milliwatts -> the whole board's power in milliwatts, None where the rails do not show it. Boards differ."""

_END_S = 2.0
_TAIL_BYTES = 500


def reading_of(sample: TegrastatsSample, total_power_mw: TotalPower | None = None) -> Reading:
    """Return a sample as named values; values that the line lacks are absent.

    Names: `<rail>_power_mw`, `total_power_mw`, `<zone>_temperature_c`, `gpu_load_percent`, `gpu_mhz`, `emc_load_percent`,
    `emc_mhz`, `cpu_load_percent` (mean of the cores that are on), `core_<n>_mhz`, `ram_used_mib`, `swap_used_mib`,
    `<engine>_load_percent`.
    """
    rails = {rail: value for rail, value in sample.power_mw.items() if rail != "NC"}
    loads = [load for load in sample.cpu_load_percent if load is not None]
    found: dict[str, float | None] = {
        "total_power_mw": total_power_mw(rails) if total_power_mw and rails else None,
        "gpu_load_percent": sample.gpu_load_percent,
        "gpu_mhz": sample.gpu_freq_mhz,
        "emc_load_percent": sample.emc_load_percent,
        "emc_mhz": sample.emc_freq_mhz,
        "cpu_load_percent": sum(loads) / len(loads) if loads else None,
        "ram_used_mib": sample.ram_used_mib,
        "swap_used_mib": sample.swap_used_mib,
    }
    found |= {f"{rail}_power_mw": value for rail, value in rails.items()}
    found |= {f"{zone}_temperature_c": value for zone, value in sample.temperature_c.items()}
    found |= {f"core_{core}_mhz": mhz for core, mhz in enumerate(sample.cpu_freq_mhz)}
    found |= {f"{engine}_load_percent": state.load_percent for engine, state in sample.engines.items() if state is not None}
    return {name: value for name, value in found.items() if value is not None}


class TegrastatsSource(TelemetrySource):
    """The values of each line of tegrastats, with the time at which the line came.

    Every run starts a new tegrastats; only its current values are used, since its averages begin at its start. Should this
    process be killed, tegrastats ends with its next line, because no process reads it.

    Args:
        interval_ms: Time between two lines.
        total_power_mw: Rule for the board's total; without it there is no total.
        command: tegrastats, without the option for the interval.
        timeout_s: Longest wait for the first line.
    """

    name = "tegrastats"

    def __init__(
        self,
        interval_ms: int = 100,
        total_power_mw: TotalPower | None = None,
        command: Sequence[str] = ("tegrastats",),
        timeout_s: float = 5.0,
    ) -> None:
        self.notes: list[str] = []
        self._command = [*command, "--interval", str(interval_ms)]
        self._total_power_mw = total_power_mw
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._first = threading.Event()
        self._lock = threading.Lock()
        self._fresh: list[tuple[int, Reading]] = []
        self._closing = False

    @classmethod
    def is_available(cls) -> bool:
        """Return whether tegrastats is on PATH."""
        return shutil.which("tegrastats") is not None

    def __enter__(self) -> "TegrastatsSource":
        self.notes.clear()
        self._first.clear()
        self._fresh.clear()
        self._closing = False
        self._stderr = tempfile.TemporaryFile()  # a file never blocks its writer, as a pipe can
        try:
            # In a session of its own, so Ctrl-C in the terminal reaches this process only, which then ends tegrastats.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._stderr, start_new_session=True
            )
        except OSError as exc:
            self._close()
            problem = f"{self._command[0]} does not start: {exc.strerror}"
            raise MissingError(problem, "it comes with JetPack and runs on Jetson boards only") from exc
        self._reader = threading.Thread(target=self._follow, args=(self._process,), name="tegrastats", daemon=True)
        self._reader.start()
        try:
            heard = self._first.wait(self._timeout_s) and bool(self._fresh)
        except BaseException:  # Ctrl-C: the process has a session of its own, and would continue
            self._close()
            raise
        if not heard:
            said = self._tail()
            self._close()
            problem = f"{self._command[0]} reports nothing" + (f": {said}" if said else "")
            raise MissingError(problem, f"see what it prints: {' '.join(self._command)}")
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def drain(self) -> list[tuple[int, Reading]]:
        """Return the values of the lines that came since the last call, each with its time.monotonic_ns."""
        with self._lock:
            fresh, self._fresh = self._fresh, []
        return fresh

    def _follow(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            now_ns = time.monotonic_ns()
            sample = parse_line(line.decode("utf-8", errors="replace"))
            if sample.is_empty:
                continue
            with self._lock:
                self._fresh.append((now_ns, reading_of(sample, self._total_power_mw)))
            if not self._first.is_set():
                self.notes.extend(_degradations(sample))
                self._first.set()
        if self._first.is_set() and not self._closing:
            self.notes.append("tegrastats: it ended before the run: its values end there")
        self._first.set()

    def _tail(self) -> str:
        assert self._stderr is not None
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _TAIL_BYTES))
        return " ".join(self._stderr.read().decode(errors="replace").split())

    def _close(self) -> None:
        self._closing = True
        if self._process is not None:
            _signal_group(self._process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            _signal_group(self._process, signal.SIGKILL)  # also the processes that it started and left behind
            self._process.wait()
            if self._reader is not None:
                self._reader.join(_END_S)
            if self._process.stdout is not None and not (self._reader and self._reader.is_alive()):
                self._process.stdout.close()
        if self._stderr is not None:
            self._stderr.close()
        self._process = self._reader = self._stderr = None


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Signal the process and all that it started; it leads a process group of its own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _degradations(sample: TegrastatsSample) -> list[str]:
    """Return a note on the values that this line lacks. Releases print clocks, engines and sometimes rails to root only."""
    has = {
        "power": bool(sample.power_mw),
        "the GPU's clock": sample.gpu_freq_mhz is not None,
        "the GPU's load": sample.gpu_load_percent is not None,
        "the memory controller": sample.emc_load_percent is not None or sample.emc_freq_mhz is not None,
    }
    missing = [name for name, there in has.items() if not there]
    if not missing:
        return []
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    why = "this board or release does not print it" if root else "run as root (sudo): this release may print it for root only"
    return [f"tegrastats: no values of {', '.join(missing)}: {why}"]
