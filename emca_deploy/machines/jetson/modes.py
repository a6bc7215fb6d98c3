"""A board's power modes, the current one and the fastest one."""

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from emca_deploy.errors import EmcaError, UnknownNameError
from emca_deploy.machines.jetson.files import board_root, read_text, run_tool

__all__ = ["PowerMode", "PowerModes", "fastest_mode", "parse_modes", "parse_query", "read_power_modes"]

CONF = "etc/nvpmodel.conf"
STATUS = "var/lib/nvpmodel/status"

MODE = re.compile(r"<\s*POWER_MODEL\s+ID\s*=\s*(\d{1,3})\s+NAME\s*=\s*([^\s>]+)\s*>")
QUERY = re.compile(r"NV Power Mode:[ \t]*(\S+)")
NUMBER = re.compile(r"\d{1,3}", re.ASCII)
SAVED = re.compile(r"pmode:\s*(\d{1,4})")
WATTS = re.compile(r"(?<![0-9])(\d{1,3})W")


@dataclass(frozen=True)
class PowerMode:
    """One mode of nvpmodel.

    Attributes:
        id: Number of the mode; the fastest is not 0 on every board.
        name: Name, such as "15W".
        cores: Number of cores that are on; None if unknown.
        gpu_max_hz: Highest GPU frequency; infinite without a limit, None if unknown.
        cpu_max_khz: Highest CPU frequency of all clusters; infinite without a limit, None if unknown.
    """

    id: int
    name: str
    cores: int | None = None
    gpu_max_hz: float | None = None
    cpu_max_khz: float | None = None


@dataclass(frozen=True)
class PowerModes:
    """The modes of a board.

    Attributes:
        current: Mode that is on; None if it could not be read.
        fastest: Mode with the highest limits; None if unknown.
        modes: All modes; empty if nvpmodel.conf cannot be read.
        note: Why `current` is None, and what to do; otherwise empty.
    """

    current: PowerMode | None
    fastest: PowerMode | None
    modes: tuple[PowerMode, ...]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return what results record of the current mode."""
        current, fastest = self.current, self.fastest
        return {
            "name": current.name if current else None,
            "id": current.id if current else None,
            "fastest": fastest.name if fastest else None,
            "is_fastest": current.id == fastest.id if current and fastest else None,
        }

    def find(self, wanted: str) -> PowerMode:
        """Return a mode by name, in any case, or by number.

        Raises:
            UnknownNameError: the board has no such mode.
        """
        text = wanted.strip().upper()
        for mode in self.modes:
            if text == mode.name.upper() or (text.isdecimal() and int(text) == mode.id):
                return mode
        have = ", ".join(f"{mode.id} {mode.name}" for mode in self.modes) or "no mode that can be read"
        raise UnknownNameError.of("power mode", wanted, [mode.name for mode in self.modes], f"this board has: {have}")


def parse_modes(conf: str) -> tuple[PowerMode, ...]:
    """Return the modes that an nvpmodel.conf defines, in its order."""
    text = "\n".join(line for line in conf.splitlines() if not line.lstrip().startswith("#"))
    heads = list(MODE.finditer(text))
    modes = []
    for head in heads:
        end = text.find("<", head.end())
        body = text[head.end() : end if end >= 0 else len(text)]
        cores = re.findall(r"^[ \t]*CPU_ONLINE[ \t]+CORE_\d{1,3}[ \t]+([01])\b", body, re.MULTILINE)
        gpu = _limits(re.findall(r"^[ \t]*GPU\S*[ \t]+MAX_FREQ[ \t]+(-?\d{1,12})", body, re.MULTILINE))
        cpu = _limits(re.findall(r"^[ \t]*CPU_\S+[ \t]+MAX_FREQ[ \t]+(-?\d{1,12})", body, re.MULTILINE))
        modes.append(PowerMode(int(head[1]), head[2], cores.count("1") if cores else None, gpu, cpu))
    return tuple(modes)


def _limits(values: list[str]) -> float | None:
    """Return the highest of some limits; nvpmodel writes -1 for none."""
    return max((math.inf if int(value) < 0 else float(value) for value in values), default=None)


def fastest_mode(modes: tuple[PowerMode, ...]) -> PowerMode | None:
    """Return the mode with the highest limits, or None if the modes look alike.

    MAXN_SUPER and MAXN come first; then GPU clock, watts, cores and CPU clock decide, in this order.
    """
    ranks = [_rank(mode) for mode in modes]
    if not modes or (len(modes) > 1 and len(set(ranks)) == 1):
        return None
    return max(zip(ranks, modes, strict=True), key=lambda pair: pair[0])[1]


def _rank(mode: PowerMode) -> tuple[int, float, int, int, float]:
    name = mode.name.upper()
    watts = WATTS.search(name)
    # MAXQ and MAXP of the TX2 are for efficiency.
    unlimited = (2 if "SUPER" in name else 1) if name.startswith("MAXN") else 0
    return unlimited, mode.gpu_max_hz or 0.0, int(watts[1]) if watts else 0, mode.cores or 0, mode.cpu_max_khz or 0.0


def parse_query(text: str) -> tuple[str, int] | None:
    """Return (name, number) of the mode that `nvpmodel -q` printed, or None if the text is something else."""
    lines = [line for line in text.splitlines() if line.strip()]
    for line, following in pairwise(lines):
        found = QUERY.match(line)
        number = NUMBER.fullmatch(following.strip())
        if found and number:
            return found[1], int(number[0])
    return None


def read_power_modes(root: Path | None = None) -> PowerModes:
    """Return the modes of this board; never raises or changes anything."""
    root = board_root() if root is None else root
    modes = parse_modes(read_text(root / CONF) or "")
    fastest = fastest_mode(modes)
    try:
        asked = parse_query(run_tool(root, "nvpmodel", "-q"))
        note = "" if asked else "nvpmodel -q does not report the power mode: run it as root (sudo)"
    except EmcaError as exc:
        asked, note = None, f"{exc.problem}: {exc.remedy}"
    if asked is not None:
        name, number = asked
    else:  # nvpmodel keeps it for the next boot in a file that everybody may read
        saved = SAVED.search(read_text(root / STATUS) or "")
        if saved is None:
            return PowerModes(None, fastest, modes, note)
        name, number = f"mode {int(saved[1])}", int(saved[1])
    return PowerModes(next((mode for mode in modes if mode.id == number), PowerMode(number, name)), fastest, modes)
