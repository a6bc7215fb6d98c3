"""The memory of a process, and what is free, as the kernel counts it."""

from pathlib import Path

__all__ = ["available_mib", "peak_rss_mib", "unused_mib"]


def peak_rss_mib(pid: int | None = None) -> float | None:
    """Return the peak resident memory of a process (None: this one) in MiB, or None where the system does not tell."""
    try:
        for line in Path(f"/proc/{pid or 'self'}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def available_mib(root: Path = Path("/")) -> float | None:
    """Return what new processes can take without swapping, within a container's limit, in MiB; None where nothing tells."""
    free_mib = unused_mib(root)
    if free_mib is None:
        return None
    group = root / "sys/fs/cgroup"  # a container sees its own here
    try:
        limit, used = (int((group / name).read_text(encoding="utf-8")) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # none, or "max"
        return free_mib
    return min(free_mib, max(0, limit - used) / 2**20)


def unused_mib(root: Path = Path("/")) -> float | None:
    """Return what the machine has left for new processes, containers or not, in MiB, or None where it does not say."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
