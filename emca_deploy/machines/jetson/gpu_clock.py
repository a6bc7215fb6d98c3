"""Clock and load of a board's GPU, from the kernel's devfreq."""

from dataclasses import dataclass
from pathlib import Path

from emca_deploy.errors import MissingError
from emca_deploy.machines.jetson.files import board_root, read_number, read_text
from emca_deploy.telemetry.source import Reading, TelemetrySource

__all__ = ["GpuClock", "GpuClockSource", "find_gpu", "read_gpu_clock"]

GPU_NODES = frozenset({"gpu", "gp10b", "gv11b", "ga10b", "gb10b"})
THOR_GPU = "gpu-gpc-0"
"""Thor has two clock domains: graphics clusters, which run networks, and video engines."""


@dataclass(frozen=True)
class GpuClock:
    """A GPU's clock and load (share of time at work) now; None if unknown."""

    current_mhz: float | None
    min_mhz: float | None
    max_mhz: float | None
    load_percent: float | None


def find_gpu(root: Path | None = None) -> Path | None:
    """Return the folder of the GPU's devfreq, or None."""
    devices = sorted(((board_root() if root is None else root) / "sys/class/devfreq").glob("*"))
    for device in devices:
        if read_text(device / "device/of_node/name") in GPU_NODES:
            return device
    return next((device for device in devices if device.name == THOR_GPU), None)


def read_gpu_clock(device: Path) -> GpuClock:
    """Return the clock in a devfreq folder."""
    hertz = [read_number(device / f"{name}_freq") for name in ("cur", "min", "max")]
    current, low, high = (None if value is None else value / 1e6 for value in hertz)
    permille = read_number(device / "device/load")
    return GpuClock(current, low, high, None if permille is None else permille / 10)


class GpuClockSource(TelemetrySource):
    """`gpu_mhz` and `gpu_load_percent`; needs no root."""

    name = "gpu_clock"

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._device: Path | None = None

    def __enter__(self) -> "GpuClockSource":
        """Find the GPU.

        Raises:
            MissingError: the kernel reports none.
        """
        self._device = find_gpu(self._root)
        if self._device is None:
            raise MissingError("the kernel has no GPU clock in /sys/class/devfreq", "nothing to do on this release")
        return self

    def __exit__(self, *error: object) -> None:
        self._device = None

    def read(self) -> Reading:
        """Return clock and load now."""
        if self._device is None:
            return {}
        clock = read_gpu_clock(self._device)
        found = {"gpu_mhz": clock.current_mhz, "gpu_load_percent": clock.load_percent}
        return {name: value for name, value in found.items() if value is not None}
