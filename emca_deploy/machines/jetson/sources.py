"""What to sample on a board beside a run."""

from pathlib import Path

from emca_deploy.machines.jetson.files import board_root, find_tool
from emca_deploy.machines.jetson.gpu_clock import GpuClockSource, find_gpu
from emca_deploy.machines.jetson.rails import Ina3221Source, find_rails, total_power_mw
from emca_deploy.telemetry.processor import CpuFrequencySource
from emca_deploy.telemetry.source import Reading, TelemetrySource, power_channel
from emca_deploy.telemetry.tegrastats_source import TegrastatsSource
from emca_deploy.telemetry.thermal import ThermalSource

__all__ = ["board_sources"]


class _LoadsOnly(TegrastatsSource):
    """tegrastats without its power, where another source reads the same monitors at times of our own."""

    def drain(self) -> list[tuple[int, Reading]]:
        """Return the loads, clocks and temperatures of the lines that came since the last call."""
        stamped = super().drain()
        return [(at, {name: value for name, value in read.items() if power_channel(name) is None}) for at, read in stamped]


def board_sources(root: Path | None = None) -> list[TelemetrySource]:
    """Return the sources of a board. Every rail's power comes from one of them only: its monitors, else tegrastats."""
    root = board_root() if root is None else root
    rails, tegrastats = find_rails(root), find_tool(root, "tegrastats")
    sources: list[TelemetrySource] = [kind(root) for kind in (CpuFrequencySource, ThermalSource) if kind.is_here(root)]
    if find_gpu(root) is not None:
        sources.append(GpuClockSource(root))
    if rails:
        sources.append(Ina3221Source(root))
    if tegrastats is not None:
        tool = _LoadsOnly if rails else TegrastatsSource
        sources.append(tool(total_power_mw=total_power_mw, command=[str(tegrastats)]))
    return sources
