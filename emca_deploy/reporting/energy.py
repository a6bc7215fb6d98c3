"""What telemetry tells of energy, as columns. A machine without a power meter has none of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from emca_deploy.reporting.formats import NONE, plain, uniform
from emca_deploy.reporting.table import Column
from emca_deploy.results.latency import LatencyResult

__all__ = ["energy_columns", "total_power"]

# A board's own meter is of everything; then the accelerator, then the processor.
_ORDER = ("ina3221", "tegrastats", "nvml", "rapl")


def total_power(telemetry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return by source what it says of all that it sees, the most inclusive source first.

    Args:
        telemetry: of a result.
    """
    found = {name: source["power"]["total"] for name, source in telemetry.get("sources", {}).items() if _has_total(source)}
    return {name: found[name] for name in sorted(found, key=lambda name: (name not in _ORDER, (*_ORDER, name).index(name)))}


def energy_columns(results: Sequence[LatencyResult]) -> tuple[Column, ...]:
    """Return watts and millijoules an image of the source that comes first, and the latter without the machine's rest."""
    totals = [total_power(result.telemetry) for result in results]
    source = next((name for total in totals for name in total), None)
    if source is None:
        return ()
    named = {
        f"W ({plain(source)})": ("power_w", 11),
        "mJ/image": ("energy_per_inference_mj", 2),
        "above idle": ("net_energy_per_inference_mj", 11),
    }
    return tuple(Column(heading, _cells(totals, source, key), rank=rank) for heading, (key, rank) in named.items())


def _cells(totals: Sequence[Mapping[str, Mapping[str, Any]]], source: str, key: str) -> tuple[str, ...]:
    values = [total.get(source, {}).get(key) for total in totals]
    texts = iter(uniform([value for value in values if value is not None]))
    return tuple(NONE if value is None else next(texts) for value in values)


def _has_total(source: Mapping[str, Any]) -> bool:
    return "total" in source.get("power", {})
