"""A Jetson's telemetry by its own tool: starts tegrastats for a run, and ends it with the run."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO

from emca_deploy.errors import MissingError
from emca_deploy.telemetry.source import Reading
from emca_deploy.telemetry.tegrastats import TegrastatsSample, parse_line

__all__ = ["TegrastatsSource", "TotalPower", "reading_of"]

TotalPower = Callable[[Mapping[str, float]], float | None]
"""Rails in milliwatts -> what the whole board takes in milliwatts, None where these rails do not say. Boards differ."""

_END_S = 2.0
_TAIL_BYTES = 500


def reading_of(sample: TegrastatsSample, total_power_mw: TotalPower | None = None) -> Reading:
    """Return a sample as named values; what the line does not say is absent.

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


class TegrastatsSource:
    """Lines of a tegrastats of our own, each with the time at which it came.

    Its averages run from its start, so that every run gets a new one; only current values are used. Should this process be
    killed, tegrastats ends with its next line, as nobody reads it any more. Without `total_power_mw`, which says how rails add
    up, there is no total. The option for `interval_ms` between lines is added to the command; its first line may take
    `timeout_s`.

    Attributes:
        notes: what it does not tell here, and what to do.
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
    def is_here(cls) -> bool:
        """Return whether there is a tegrastats on PATH."""
        return shutil.which("tegrastats") is not None

    def __enter__(self) -> "TegrastatsSource":
        """Start it, and wait for its first line.

        Raises:
            MissingError: it is not there, does not start, or says nothing that can be understood.
        """
        self.notes.clear()
        self._first.clear()
        self._fresh.clear()
        self._closing = False
        self._stderr = tempfile.TemporaryFile()  # a file never blocks its writer, as a pipe can
        try:
            # A session of its own: Ctrl-C in the terminal must reach us, who then end it.
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
        except BaseException:  # Ctrl-C: the process has a session of its own, and would go on
            self._close()
            raise
        if not heard:
            said = self._tail()
            self._close()
            problem = f"{self._command[0]} tells nothing" + (f": {said}" if said else "")
            raise MissingError(problem, f"see what it prints: {' '.join(self._command)}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def read(self) -> Reading:
        """Return the newest line's values, empty where none came since the last call."""
        return max(self.drain(), key=lambda stamped: stamped[0], default=(0, {}))[1]

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
            self.notes.append("tegrastats: it ended before the run did: its values end there")
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
            _signal_group(self._process, signal.SIGKILL)  # also what it started and left behind
            self._process.wait()
            if self._reader is not None:
                self._reader.join(_END_S)
            if self._process.stdout is not None and not (self._reader and self._reader.is_alive()):
                self._process.stdout.close()
        if self._stderr is not None:
            self._stderr.close()
        self._process = self._reader = self._stderr = None


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Signal the process and all it started; it leads a group of its own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _degradations(sample: TegrastatsSample) -> list[str]:
    """Say what this line lacks. Without root, a release leaves out clocks, the memory controller, engines, sometimes rails."""
    missing = []
    if not sample.power_mw:
        missing.append("power")
    if sample.gpu_freq_mhz is None:
        missing.append("the GPU's clock")
    if sample.gpu_load_percent is None:
        missing.append("the GPU's load")
    if sample.emc_load_percent is None and sample.emc_freq_mhz is None:
        missing.append("the memory controller")
    if not missing:
        return []
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    why = (
        "this board or release does not print it" if root else "run as root (sudo) to have what this release prints for root only"
    )
    return [f"tegrastats: no values of {', '.join(missing)}: {why}"]
