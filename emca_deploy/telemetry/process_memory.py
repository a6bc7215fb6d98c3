"""Memory and context switches of one candidate's process."""

import os
from pathlib import Path
from types import TracebackType

from emca_deploy.errors import MissingError
from emca_deploy.results.telemetry import ContextSwitches
from emca_deploy.telemetry.source import Reading

__all__ = ["ProcessMemorySource", "read_context_switches", "read_pss_mib"]

_MIB = 2**20


class ProcessMemorySource:
    """`rss_mib`, the resident memory of a process, in which the candidate `owner` lives."""

    name = "process_memory"

    def __init__(self, pid: int, owner: str, root: Path = Path("/")) -> None:
        self.owner = owner
        self._statm = root / f"proc/{pid}/statm"
        self._descriptor = -1
        self._page_bytes = os.sysconf("SC_PAGESIZE") if hasattr(os, "sysconf") else 4096

    def __enter__(self) -> "ProcessMemorySource":
        """Open it.

        Raises:
            MissingError: no such process, or a system without /proc.
        """
        try:
            self._descriptor = os.open(self._statm, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            problem = f"{self._statm} cannot be read: {exc.strerror}"
            raise MissingError(problem, "the process has ended, or the system has no /proc") from exc
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def read(self) -> Reading:
        """Return the memory now; nothing once the process has ended."""
        try:
            return {"rss_mib": int(os.pread(self._descriptor, 128, 0).split()[1]) * self._page_bytes / _MIB}
        except (OSError, IndexError, ValueError):
            return {}


def read_pss_mib(pid: int, root: Path = Path("/")) -> float | None:
    """Return a process's resident memory with shared pages divided among those that share them, or None.

    The kernel walks all pages and stops the process from mapping memory meanwhile: never ask beside a measurement.
    """
    try:
        lines = (root / f"proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def read_context_switches(pid: int, root: Path = Path("/")) -> ContextSwitches | None:
    """Return the switches of all threads of a process since they began, or None where the system does not say."""
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
