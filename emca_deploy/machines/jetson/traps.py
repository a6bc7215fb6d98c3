"""Causes of slower, less steady or incomplete measurements on a board."""

import os
from collections.abc import Iterator
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
    """Return what `doctor` reports of this board, and its traps; None if this is no Jetson. Changes nothing."""
    root = board_root() if root is None else root
    facts = detect(root)
    if facts is None:
        return None
    state = read_board_state(root)
    is_root = not hasattr(os, "geteuid") or os.geteuid() == 0
    traps = list(find_board_traps(facts, state, left_behind(root, state.modes), is_root=is_root))
    return {**to_json(facts), **state.to_dict(), "notes": list(state.notes)}, traps


def find_board_traps(facts: BoardFacts, state: BoardState, left: Note | None, *, is_root: bool) -> Iterator[Trap]:
    """Yield the traps of a board, worst first; `left` is the note of a killed run."""
    if left is not None:
        problem = f"a run that was killed has left its power mode on; the mode before it was {left.name}"
        yield Trap("power-mode-left", problem, f"sudo nvpmodel -m {left.restore}, or run `profile --target jetson` as root")
    current, fastest = state.modes.current, state.modes.fastest
    if current is not None and fastest is not None and current.id != fastest.id:
        yield Trap(
            "power-mode",
            f"the power mode is {current.name}; this board's fastest is {fastest.name}",
            f"sudo nvpmodel -m {fastest.id}, or --power-mode {fastest.name} for one run; keep it if the product uses it too",
        )
    if state.clocks.locked is False:
        problem = "the clocks are not locked: latencies depend on how busy the board was just before"
        yield Trap("clocks-not-locked", problem, "sudo jetson_clocks")
    if facts.jetpack is None:
        yield Trap(
            "unknown-release",
            f"{f'L4T {facts.l4t}' if facts.l4t else 'the L4T release of this board'} is unknown: JetPack, TensorRT and DLA are "
            "reported only as far as they are installed",
            "update emca-deploy; give `plan` --tensorrt-version instead of --jetpack",
        )
    if facts.dla_cores and facts.dla_missing is not None:
        yield Trap("dla-unsupported", f"this board has DLA cores, but: {facts.dla_missing}", "build for the GPU")
    if not is_root:
        problem = "not root: the memory controller and some engines and rails are hidden, and no power mode can be set"
        yield Trap("not-root", problem, "run it with sudo if you need these; everything else works without")
