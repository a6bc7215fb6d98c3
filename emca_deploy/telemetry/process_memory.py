"""Memory and context switches of a candidate's process."""

import os
from pathlib import Path

from emca_deploy.errors import MissingError
from emca_deploy.results.telemetry import ContextSwitches
from emca_deploy.telemetry.source import Reading, TelemetrySource

__all__ = ["ProcessMemorySource", "read_context_switches", "read_pss_mib"]

_MIB = 2**20


class ProcessMemorySource(TelemetrySource):
    """`rss_mib`, the resident memory of the process that the candidate `owner` runs in."""

    name = "process_memory"

    def __init__(self, pid: int, owner: str) -> None:
        self.owner = owner
        self._statm = Path(f"/proc/{pid}/statm")
        self._descriptor = -1
        self._page_bytes = os.sysconf("SC_PAGESIZE") if hasattr(os, "sysconf") else 4096

    def __enter__(self) -> "ProcessMemorySource":
        try:
            self._descriptor = os.open(self._statm, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            problem = f"{self._statm} cannot be read: {exc.strerror}"
            raise MissingError(problem, "the process has ended, or the system has no /proc") from exc
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def read(self) -> Reading:
        """Return the memory now; nothing once the process has ended."""
        try:
            return {"rss_mib": int(os.pread(self._descriptor, 128, 0).split()[1]) * self._page_bytes / _MIB}
        except (OSError, IndexError, ValueError):
            return {}


def read_pss_mib(pid: int) -> float | None:
    """Return a process's resident memory with shared pages divided among the processes that share them, or None.

    The kernel walks all pages and keeps the process from mapping memory while it does: do not call this during a measurement.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def read_context_switches(pid: int, root: Path = Path("/")) -> ContextSwitches | None:
    """Return the switches of all threads of a process since they started, or None where the system does not report them."""
    voluntary = involuntary = found = 0
    for status in (root / f"proc/{pid}/task").glob("*/status"):
        try:
            fields = dict(line.partition(":")[::2] for line in status.read_text(encoding="utf-8", errors="replace").splitlines())
            voluntary += int(fields["voluntary_ctxt_switches"])
            involuntary += int(fields["nonvoluntary_ctxt_switches"])
        except (OSError, KeyError, ValueError):  # a thread that ended just now
            continue
        found += 1
    return ContextSwitches(voluntary, involuntary) if found else None
