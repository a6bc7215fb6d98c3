"""A run on a Jetson board, in the power mode that the user chose, with what the board reports of itself."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emca_deploy.errors import EmcaError, MissingError
from emca_deploy.machines.environment import extend_fingerprint
from emca_deploy.machines.jetson.clocks import Clocks, read_clocks
from emca_deploy.machines.jetson.facts import BoardFacts, detect
from emca_deploy.machines.jetson.files import board_root, find_tool, read_number
from emca_deploy.machines.jetson.gpu_clock import GpuClockSource, find_gpu, read_gpu_clock
from emca_deploy.machines.jetson.modes import PowerModes, read_power_modes
from emca_deploy.machines.jetson.rails import Ina3221Source, find_rails, total_power_mw
from emca_deploy.machines.jetson.switch import hold_power_mode, is_held, left_behind, restore_left_behind
from emca_deploy.results.codec import to_json
from emca_deploy.results.latency import ProfileReport
from emca_deploy.telemetry.processor import CpuFrequencySource
from emca_deploy.telemetry.source import Reading, TelemetrySource, power_channel
from emca_deploy.telemetry.tegrastats_source import TegrastatsSource
from emca_deploy.telemetry.thermal import ThermalSource, read_temperatures_c

__all__ = ["BoardState", "annotate_report", "board_session", "board_sources", "check_board", "read_board_state"]

UNLOCKED = "the clocks are not locked, so latencies depend on what ran just before: lock them with sudo jetson_clocks"

# NVIDIA's Jetson Linux Developer Guide, "Over-Current (OC) Event".
THROTTLING = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}


@dataclass(frozen=True)
class BoardState:
    """Current speed limits of a board."""

    modes: PowerModes
    clocks: Clocks

    @property
    def warnings(self) -> tuple[str, ...]:
        """Causes of slower or less steady measurements, each with what to do."""
        current, fastest = self.modes.current, self.modes.fastest
        found = []
        if current is not None and fastest is not None and current.id != fastest.id:
            found.append(
                f"the power mode is {current.name}, not {fastest.name}, this board's fastest: "
                f"add --power-mode {fastest.name}, or sudo nvpmodel -m {fastest.id}"
            )
        if self.clocks.locked is False:
            found.append(UNLOCKED)
        return tuple(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """Values that could not be read, each with what to do."""
        return tuple(note for note in (self.modes.note, *self.clocks.notes) if note)

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON."""
        return {"power_mode": self.modes.to_dict(), "clocks": self.clocks.to_dict()}


def read_board_state(root: Path | None = None) -> BoardState:
    """Return power mode and clocks now; never raises or changes anything."""
    return BoardState(read_power_modes(root), read_clocks(root))


def check_board(root: Path | None = None) -> BoardFacts:
    """Return what board this is.

    Raises:
        MissingError: this machine is no Jetson.
    """
    facts = detect(root)
    if facts is None:
        raise MissingError(
            "target 'jetson': this machine is no Jetson board",
            "run it on the board, or on this machine with --target ssh://user@board, cpu or gpu",
        )
    return facts


class _LoadsOnly(TegrastatsSource):
    """tegrastats without its power, for boards whose monitors are read directly."""

    def drain(self) -> list[tuple[int, Reading]]:
        """Return the loads, clocks and temperatures of the lines that came since the last call."""
        stamped = super().drain()
        return [(at, {name: value for name, value in read.items() if power_channel(name) is None}) for at, read in stamped]


def board_sources(root: Path | None = None) -> list[TelemetrySource]:
    """Return the telemetry sources of a board. Power comes from one of them only: the monitors, else tegrastats."""
    root = board_root() if root is None else root
    rails, tegrastats = find_rails(root), find_tool(root, "tegrastats")
    sources: list[TelemetrySource] = [kind(root) for kind in (CpuFrequencySource, ThermalSource) if kind.is_available(root)]
    if find_gpu(root) is not None:
        sources.append(GpuClockSource(root))
    if rails:
        sources.append(Ina3221Source(root))
    if tegrastats is not None:
        tool = _LoadsOnly if rails else TegrastatsSource
        sources.append(tool(total_power_mw=total_power_mw, command=[str(tegrastats)]))
    return sources


def annotate_report(report: ProfileReport, record: Mapping[str, Any]) -> ProfileReport:
    """Return a report with the board in its environment and fingerprint, and the board's warnings with every result.

    The record is that of a session that is over. Results are not stable if the board slowed itself down.
    """
    parts = {
        "board": record["model"],
        "l4t": record["l4t"],
        "power_mode": record["power_mode"]["name"],
        "clocks_locked": record["clocks"]["locked"],
    }
    environment = extend_fingerprint(report.environment, parts)
    doubts = list(record["warnings"])
    if events := record.get("throttled"):
        counts = ", ".join(f"{count} times for {THROTTLING.get(name, name)}" for name, count in events.items())
        doubts.append(
            f"the board slowed itself down during the run, {counts}: use a slower power mode (--power-mode) or a stronger "
            "supply, and measure again"
        )
    results = (
        replace(result, warnings=(*result.warnings, *doubts), stable=result.stable and not events) for result in report.results
    )
    return replace(report, results=tuple(results), environment={**environment, "board": record})


@contextmanager
def board_session(power_mode: str | None = None, root: Path | None = None) -> Iterator[dict[str, Any]]:
    """Yield the record of this board for the result's environment; it grows until the block ends.

    A power mode (name or number) is set before and restored afterwards.

    Raises:
        MissingError: this is no Jetson, or the power mode cannot be set or restored.
        UnknownNameError: the board has no such power mode.
    """
    root = board_root() if root is None else root
    facts = check_board(root)
    with ExitStack() as stack:
        warnings = list(_restore_left_behind(root)) if power_mode is None else []
        before = state = read_board_state(root)
        if power_mode is not None:
            stack.enter_context(hold_power_mode(power_mode, root))
            state = read_board_state(root)
            if before.clocks.locked and not state.clocks.locked:
                warnings.append("setting the power mode has unlocked the clocks, also for after this run: sudo jetson_clocks")
        record = {**to_json(facts), **state.to_dict(), **_now(root), "power_rails": [rail.name for rail in find_rails(root)]}
        record["power_mode"]["before"] = before.modes.current.name if before.modes.current else None
        record |= {"notes": list(state.notes), "warnings": [*warnings, *state.warnings]}
        counters = _throttle_counters(root)
        yield record
        record["after"] = _now(root)
        counts = _throttle_counters(root).items()
        record["throttled"] = {name: n - counters[name] for name, n in counts if name in counters and n > counters[name]}


def _now(root: Path) -> dict[str, Any]:
    device = find_gpu(root)
    return {"temperature_c": read_temperatures_c(root), "gpu_mhz": read_gpu_clock(device).current_mhz if device else None}


def _throttle_counters(root: Path) -> dict[str, int]:
    """Return how often the board has slowed itself down since boot, by cause ("oc3"); some boards have no such counters."""
    places = sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))
    return {place.name.partition("_")[0]: count for place in places if (count := read_number(place)) is not None}


def _restore_left_behind(root: Path) -> Sequence[str]:
    """Restore the mode that a killed run left; return warnings about it, or what to do if that needs root."""
    if is_held(root):
        return ["another emca-deploy holds the power mode and will restore its own: wait until it has ended, and measure again"]
    with suppress(EmcaError):
        note = restore_left_behind(root)
        return [f"an earlier run was killed in another power mode; {note.name} was restored before this one"] if note else []
    left = left_behind(root)
    return [f"an earlier run was killed before it restored the power mode: sudo nvpmodel -m {left.restore}"] if left else []
