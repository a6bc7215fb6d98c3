"""What of a board makes a measurement slower, less steady or less complete than it need be."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emca_deploy.machines.jetson.facts import BoardFacts, detect
from emca_deploy.machines.jetson.files import board_root
from emca_deploy.machines.jetson.session import BoardState, read_board_state
from emca_deploy.machines.jetson.switch import Note, left_behind
from emca_deploy.results.codec import to_json

__all__ = ["Trap", "examine_board", "find_board_traps"]


@dataclass(frozen=True)
class Trap:
    """Something about a machine that makes a measurement or an INT8 model worse than it need be."""

    id: str
    problem: str
    remedy: str


def examine_board(root: Path | None = None) -> tuple[dict[str, Any], list[Trap]] | None:
    """Return what `doctor` tells of this board and its traps, or None where this is no Jetson. Changes nothing."""
    root = board_root() if root is None else root
    facts = detect(root)
    if facts is None:
        return None
    state = read_board_state(root)
    is_root = not hasattr(os, "geteuid") or os.geteuid() == 0
    traps = find_board_traps(facts, state, left_behind(root, state.modes), is_root=is_root)
    return {**to_json(facts), **state.to_dict(), "notes": list(state.notes)}, traps


def find_board_traps(facts: BoardFacts, state: BoardState, left: Note | None, *, is_root: bool) -> list[Trap]:
    """Return the traps of a board, worst first; `left` is what a killed run has left, if anything."""
    candidates = (_left(left), _mode(state), _clocks(state), _release(facts), _dla(facts), _not_root(is_root=is_root))
    return [trap for trap in candidates if trap is not None]


def _left(left: Note | None) -> Trap | None:
    if left is None:
        return None
    problem = f"a run that was killed has left its power mode; before it, it was {left.name}"
    return Trap("power-mode-left", problem, f"sudo nvpmodel -m {left.restore}, or run `profile --target jetson` as root")


def _mode(state: BoardState) -> Trap | None:
    current, fastest = state.modes.current, state.modes.fastest
    if current is None or fastest is None or current.id == fastest.id:
        return None
    return Trap(
        "power-mode",
        f"the power mode is {current.name}; this board's fastest is {fastest.name}",
        f"sudo nvpmodel -m {fastest.id}, or --power-mode {fastest.name} for a run only; or keep it, if the product has it too",
    )


def _clocks(state: BoardState) -> Trap | None:
    if state.clocks.locked is not False:
        return None
    problem = "the clocks are not locked: latencies depend on how busy the board was just before"
    return Trap("clocks-not-locked", problem, "sudo jetson_clocks")


def _release(facts: BoardFacts) -> Trap | None:
    if facts.jetpack is not None:
        return None
    named = f"L4T {facts.l4t}" if facts.l4t else "the release of this board's L4T"
    return Trap(
        "unknown-release",
        f"{named} is not known here: nothing is said of its JetPack, TensorRT and DLA but what is installed",
        "update emca-deploy; give `plan` --tensorrt-version instead of --jetpack",
    )


def _dla(facts: BoardFacts) -> Trap | None:
    if not facts.dla_cores or facts.dla_missing is None:
        return None
    return Trap("dla-unsupported", f"this board has DLA cores, but: {facts.dla_missing}", "build for the GPU")


def _not_root(*, is_root: bool) -> Trap | None:
    if is_root:
        return None
    problem = "not root: the board hides the memory controller and some engines and rails, and no power mode can be set"
    return Trap("not-root", problem, "run it with sudo where that matters; everything else works without")
