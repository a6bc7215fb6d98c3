"""Clock and load of a board's GPU, as the kernel's devfreq has them."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from emca_deploy.errors import MissingError
from emca_deploy.machines.jetson.files import board_root, read_number, read_text
from emca_deploy.telemetry.source import Reading

__all__ = ["GpuClock", "GpuClockSource", "find_gpu", "read_gpu_clock"]

GPU_NODES = frozenset({"gpu", "gp10b", "gv11b", "ga10b", "gb10b"})
THOR_GPU = "gpu-gpc-0"
"""Thor has a clock domain for its graphics clusters and one for its video engines; the first is what networks run on."""


@dataclass(frozen=True)
class GpuClock:
    """A GPU's clock now.

    Attributes:
        current_mhz, min_mhz, max_mhz: as the frequency governor has them.
        load_percent: share of its time that it works; None where the kernel does not say.
    """

    current_mhz: float | None
    min_mhz: float | None
    max_mhz: float | None
    load_percent: float | None

    @property
    def is_locked(self) -> bool | None:
        """Whether it cannot change; None where the kernel does not tell."""
        return None if self.min_mhz is None or self.max_mhz is None else self.min_mhz == self.max_mhz


def find_gpu(root: Path | None = None) -> Path | None:
    """Return the folder of the GPU's devfreq, or None."""
    devices = sorted(((board_root() if root is None else root) / "sys/class/devfreq").glob("*"))
    for device in devices:
        if read_text(device / "device/of_node/name") in GPU_NODES:
            return device
    return next((device for device in devices if device.name == THOR_GPU), None)


def read_gpu_clock(device: Path) -> GpuClock:
    """Return what a GPU's devfreq folder says now."""
    current, low, high = (read_number(device / f"{name}_freq") for name in ("cur", "min", "max"))
    permille = read_number(device / "device/load")
    return GpuClock(_mhz(current), _mhz(low), _mhz(high), None if permille is None else permille / 10)


def _mhz(hertz: int | None) -> float | None:
    return None if hertz is None else hertz / 1e6


class GpuClockSource:
    """`gpu_mhz` and `gpu_load_percent`; needs no root."""

    name = "gpu_clock"

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._device: Path | None = None

    def __enter__(self) -> "GpuClockSource":
        """Find the GPU.

        Raises:
            MissingError: the kernel tells of none.
        """
        self._device = find_gpu(self._root)
        if self._device is None:
            raise MissingError("the kernel has no clock of a GPU in /sys/class/devfreq", "nothing to do on this release")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._device = None

    def read(self) -> Reading:
        """Return clock and load now."""
        if self._device is None:
            return {}
        clock = read_gpu_clock(self._device)
        found = {"gpu_mhz": clock.current_mhz, "gpu_load_percent": clock.load_percent}
        return {name: value for name, value in found.items() if value is not None}
