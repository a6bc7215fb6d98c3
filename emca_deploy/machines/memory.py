"""The memory of a process, and the free memory, from the kernel."""

from pathlib import Path

__all__ = ["available_mib", "peak_rss_mib", "unused_mib"]


def peak_rss_mib(pid: int | None = None) -> float | None:
    """Return the peak resident memory of a process (None is this one) in MiB, or None if it is unknown."""
    try:
        for line in Path(f"/proc/{pid or 'self'}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def available_mib(root: Path = Path("/")) -> float | None:
    """Return the memory that new processes can take without swapping, within a container's limit, in MiB, or None."""
    free_mib = unused_mib(root)
    if free_mib is None:
        return None
    group = root / "sys/fs/cgroup"  # in a container, its own group
    try:
        limit, used = (int((group / name).read_text(encoding="utf-8")) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # none, or "max"
        return free_mib
    return min(free_mib, max(0, limit - used) / 2**20)


def unused_mib(root: Path = Path("/")) -> float | None:
    """Return the memory that the machine has left for new processes, in MiB, or None."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
