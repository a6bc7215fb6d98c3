"""A board's power modes: which there are, which is on, and which is the fastest."""

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

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
        id: its number; the fastest is not 0 on every board.
        name: "15W".
        cores: that are on; None where its definition does not say.
        gpu_max_hz: highest GPU frequency; infinite where it sets no limit, None where its definition does not say.
        cpu_max_khz: highest CPU frequency of all clusters; infinite or None as for the GPU.
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
        current: the one that is on; None where that could not be read.
        fastest: the one with the highest limits; None where its definitions do not say.
        modes: all of them; empty where nvpmodel.conf cannot be read.
        note: why `current` is None, and what to do; empty where it is not.
    """

    current: PowerMode | None
    fastest: PowerMode | None
    modes: tuple[PowerMode, ...]
    note: str = ""

    def find(self, wanted: str) -> PowerMode:
        """Return a mode by name, in capitals or not, or by number.

        Raises:
            UnknownNameError: the board has none of that name.
        """
        text = wanted.strip().upper()
        for mode in self.modes:
            if text == mode.name.upper() or (text.isdecimal() and int(text) == mode.id):
                return mode
        have = ", ".join(f"{mode.id} {mode.name}" for mode in self.modes) or "none that can be read"
        raise UnknownNameError.of("power mode", wanted, [mode.name for mode in self.modes], f"this board has: {have}")


def parse_modes(conf: str) -> tuple[PowerMode, ...]:
    """Return the modes that a nvpmodel.conf defines, in its order."""
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
    """Return the mode with the highest limits: MAXN_SUPER, MAXN, else by the GPU's clock, watts, cores and their clock.

    None where nothing tells them apart.
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
    """Return name and number of what `nvpmodel -q` printed, warnings before it or not; None where it is no such output."""
    lines = [line for line in text.splitlines() if line.strip()]
    for line, following in pairwise(lines):
        found = QUERY.match(line)
        number = NUMBER.fullmatch(following.strip())
        if found and number:
            return found[1], int(number[0])
    return None


def read_power_modes(root: Path | None = None) -> PowerModes:
    """Return the modes of this board and which is on; nothing here raises or changes anything."""
    root = board_root() if root is None else root
    modes = parse_modes(read_text(root / CONF) or "")
    fastest = fastest_mode(modes)
    try:
        asked = parse_query(run_tool(root, "nvpmodel", "-q").text)
        note = "" if asked else "nvpmodel -q does not tell the power mode: run it as root (sudo)"
    except EmcaError as exc:
        asked, note = None, f"{exc.problem}: {exc.remedy}"
    if asked is not None:
        name, number = asked
    else:  # what nvpmodel keeps for the next boot, which everybody may read
        saved = SAVED.search(read_text(root / STATUS) or "")
        if saved is None:
            return PowerModes(None, fastest, modes, note)
        name, number = f"mode {int(saved[1])}", int(saved[1])
    return PowerModes(next((mode for mode in modes if mode.id == number), PowerMode(number, name)), fastest, modes)
