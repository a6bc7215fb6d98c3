"""How often the board has slowed itself down because it drew too much current: NVIDIA's counters of such events."""

from collections.abc import Mapping
from pathlib import Path

from emca_deploy.machines.jetson.files import board_root, read_number

__all__ = ["describe_throttling", "read_throttle_counters", "throttled_since"]

# NVIDIA's Jetson Linux Developer Guide, "Over-Current (OC) Event": 1 is under-voltage, 2 average, 3 instantaneous over-current.
MEANINGS = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}


def read_throttle_counters(root: Path | None = None) -> dict[str, int]:
    """Return the events since boot by their name, "oc3"; empty on boards without such counters, which need no root."""
    places = ((board_root() if root is None else root) / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")
    found = {place.name.partition("_")[0]: read_number(place) for place in sorted(places)}
    return {name: count for name, count in found.items() if count is not None}


def throttled_since(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """Return the events that came in between, those that did not left out."""
    return {name: count - before[name] for name, count in now.items() if name in before and count > before[name]}


def describe_throttling(events: Mapping[str, int]) -> str:
    """Return a warning about events during a run, with what to do."""
    told = ", ".join(f"{count} times for {MEANINGS.get(name, name)}" for name, count in events.items())
    return (
        f"the board slowed itself down meanwhile: {told}: use a slower power mode (--power-mode), or a stronger supply, "
        "and measure again"
    )
