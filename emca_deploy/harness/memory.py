"""The memory of a process, as the kernel counts it."""

from pathlib import Path

__all__ = ["peak_rss_mib"]


def peak_rss_mib(pid: int | None = None) -> float | None:
    """Return the peak resident memory of a process in MiB, or None where the system does not tell.

    Args:
        pid: the process; None is this one.
    """
    try:
        for line in Path(f"/proc/{pid or 'self'}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None
