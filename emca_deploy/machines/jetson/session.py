"""A run on the board: refused elsewhere, in the power mode asked for, with what the board says of itself beside the result."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emca_deploy.errors import EmcaError, MissingError
from emca_deploy.machines.environment import extend_fingerprint
from emca_deploy.machines.jetson.clocks import Clocks, read_clocks
from emca_deploy.machines.jetson.facts import BoardFacts, detect
from emca_deploy.machines.jetson.files import board_root
from emca_deploy.machines.jetson.gpu_clock import find_gpu, read_gpu_clock
from emca_deploy.machines.jetson.modes import PowerModes, read_power_modes
from emca_deploy.machines.jetson.rails import find_rails
from emca_deploy.machines.jetson.sources import board_sources
from emca_deploy.machines.jetson.switch import hold_power_mode, is_held, left_behind, restore_left_behind
from emca_deploy.machines.jetson.throttling import describe_throttling, read_throttle_counters, throttled_since
from emca_deploy.results.codec import to_json
from emca_deploy.results.latency import ProfileReport
from emca_deploy.telemetry.source import TelemetrySource
from emca_deploy.telemetry.thermal import read_temperatures_c

__all__ = ["BoardSession", "BoardState", "annotate_report", "board_session", "check_board", "read_board_state"]

UNLOCKED = "the clocks are not locked, so that latencies depend on what ran just before: sudo jetson_clocks"


@dataclass(frozen=True)
class BoardState:
    """How fast a board is allowed to be now."""

    modes: PowerModes
    clocks: Clocks

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes a measurement slower, or less steady, than the board can be; each with what to do."""
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
        """What could not be read, each with what to do."""
        return tuple(note for note in (self.modes.note, *self.clocks.notes) if note)

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON."""
        current, fastest = self.modes.current, self.modes.fastest
        known = current is not None and fastest is not None
        return {
            "power_mode": {
                "name": current.name if current else None,
                "id": current.id if current else None,
                "fastest": fastest.name if fastest else None,
                "is_fastest": current.id == fastest.id if known and current and fastest else None,
            },
            "clocks": self.clocks.to_dict(),
        }


def read_board_state(root: Path | None = None) -> BoardState:
    """Return power mode and clocks now; nothing here raises or changes anything."""
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
            "run it on the board itself, or from here with --target ssh://user@board; cpu and gpu are this machine's",
        )
    return facts


@dataclass(frozen=True)
class BoardSession:
    """A run on a board.

    Attributes:
        record: for the result's environment, under "board"; it grows until the session is over.
    """

    facts: BoardFacts
    record: dict[str, Any] = field(default_factory=dict)
    root: Path = Path("/")

    def sources(self) -> list[TelemetrySource]:
        """Return what to sample beside the run: loads, clocks, temperatures, and each rail's power from one place only."""
        return board_sources(self.root)


def annotate_report(report: ProfileReport, record: dict[str, Any]) -> ProfileReport:
    """Return a report with the board in its environment and fingerprint, and the warnings with every result.

    The record is that of a session that is over. Results are not stable where the board slowed itself down.
    """
    parts = {
        "board": record["model"],
        "l4t": record["l4t"],
        "power_mode": record["power_mode"]["name"],
        "clocks_locked": record["clocks"]["locked"],
    }
    environment = extend_fingerprint(report.environment, parts)
    events = record.get("throttled")
    doubts = [describe_throttling(events)] if events else []
    results = (
        replace(result, warnings=(*result.warnings, *record["warnings"], *doubts), stable=result.stable and not doubts)
        for result in report.results
    )
    return replace(report, results=tuple(results), environment={**environment, "board": record})


@contextmanager
def board_session(power_mode: str | None = None, root: Path | None = None) -> Iterator[BoardSession]:
    """Yield a session on this board; at its end a power mode (name or number) that it has set is what it was before.

    Raises:
        MissingError: this is no Jetson, or the power mode cannot be set or put back.
        UnknownNameError: the board has no such power mode.
    """
    root = board_root() if root is None else root
    facts = check_board(root)
    with ExitStack() as stack:
        warnings = list(_put_back_left_behind(root)) if power_mode is None else []
        before = read_board_state(root)
        if power_mode is not None:
            stack.enter_context(hold_power_mode(power_mode, root))
        state = read_board_state(root) if power_mode is not None else before
        record = {**to_json(facts), **state.to_dict(), **_now(root), "power_rails": [rail.name for rail in find_rails(root)]}
        notes = list(state.notes)
        record["power_mode"]["before"] = before.modes.current.name if before.modes.current else None
        if power_mode is not None and before.clocks.locked and not state.clocks.locked:
            warnings.append("setting the power mode has unlocked the clocks, also for after this run: sudo jetson_clocks")
        warnings += state.warnings
        record |= {"notes": notes, "warnings": warnings}
        counters = read_throttle_counters(root)
        yield BoardSession(facts, record, root)
        record["after"] = _now(root)
        record["throttled"] = throttled_since(counters, read_throttle_counters(root))


def _now(root: Path) -> dict[str, Any]:
    device = find_gpu(root)
    gpu = read_gpu_clock(device) if device else None
    return {
        "temperature_c": read_temperatures_c(root),
        "gpu_mhz": gpu.current_mhz if gpu else None,
    }


def _put_back_left_behind(root: Path) -> Sequence[str]:
    """Put back the mode that a killed run left; say so, or what to do where that needs root."""
    if is_held(root):
        return ["another emca-deploy holds the power mode and will put its own back: wait until it has ended, and measure again"]
    with suppress(EmcaError):
        note = restore_left_behind(root)
        return [f"an earlier run was killed in another power mode; {note.name} was put back before this one"] if note else []
    left = left_behind(root)
    return [f"an earlier run was killed before it put the power mode back: sudo nvpmodel -m {left.restore}"] if left else []
