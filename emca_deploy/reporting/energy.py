"""What telemetry tells of energy, as columns. A machine without a power meter has none of them."""

from collections.abc import Sequence

from emca_deploy.reporting.formats import plain, uniform
from emca_deploy.reporting.table import Column
from emca_deploy.results.latency import LatencyResult
from emca_deploy.results.telemetry import Power, TelemetryResult

__all__ = ["energy_columns", "total_power"]

# A board's own meter is of everything; then the accelerator, then the processor.
_ORDER = ("ina3221", "tegrastats", "nvml", "rapl")


def total_power(telemetry: TelemetryResult) -> dict[str, Power]:
    """Return by source the power of all that it sees, the most inclusive source first."""
    found = {name: source.power["total"] for name, source in telemetry.sources.items() if "total" in source.power}
    return {name: found[name] for name in sorted(found, key=lambda name: (name not in _ORDER, (*_ORDER, name).index(name)))}


def energy_columns(results: Sequence[LatencyResult]) -> tuple[Column, ...]:
    """Return watts and millijoules an image of the source that comes first, and the latter without the machine's rest."""
    totals = [total_power(result.telemetry) for result in results]
    source = next((name for total in totals for name in total), None)
    if source is None:
        return ()
    powers = [total.get(source) for total in totals]
    return (
        Column(f"W ({plain(source)})", tuple(uniform([p.power_w if p else None for p in powers])), rank=11),
        Column("mJ/image", tuple(uniform([p.energy_per_inference_mj if p else None for p in powers])), rank=2),
        Column("above idle", tuple(uniform([p.net_energy_per_inference_mj if p else None for p in powers])), rank=11),
    )
