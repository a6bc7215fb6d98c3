"""Parses a line of tegrastats into a record: every form of every field from JetPack 3 to 7.

A field that is not recognized is kept as text and is never an error: a new release costs a value, not the run. Text that is not a
tegrastats line gives a sample without values (`TegrastatsSample.is_empty`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

__all__ = ["EngineState", "TegrastatsSample", "parse_line"]


@dataclass(frozen=True)
class EngineState:
    """An engine that is on; None is a value that tegrastats does not print.

    Attributes:
        load_percent: Mean of its units where each is listed.
        freq_mhz: Maximum of its units where each is listed.
    """

    load_percent: float | None = None
    freq_mhz: float | None = None


@dataclass(frozen=True)
class TegrastatsSample:
    """The values of one line. A value that the line lacks is None, or missing from its dictionary: never zero.

    Attributes:
        timestamp: Local time of the board in whole seconds; JetPack 4 prints none.
        ram_used_mib: Memory in use; processor and GPU share it.
        ram_largest_free_block_mib: Size of the largest free blocks ("lfb").
        iram_used_kib: Use of the small memory inside the chip, on older boards as root.
        cpu_load_percent: Load of each core; None for a core that is off, or whose load is unknown (it has a frequency then).
        cpu_freq_mhz: Clock of each core; None for a core that is off.
        gpu_freq_mhz: Highest clock of the GPU's clusters; a gated cluster reads 0.
        gpu_cluster_freq_mhz: Clock of each cluster, where they are listed.
        temperature_c: Current value by zone, named as printed; zones that are switched off (-256 C) are left out.
        temperature_peak_c: Highest value by zone, JetPack 7.2 and newer.
        power_mw: Current value by rail, named as printed; it may be negative. A rail "NC" is not connected. Rails may include
            one another, so their sum means nothing.
        power_average_mw: Mean by rail since tegrastats started.
        power_peak_mw: Highest value by rail, JetPack 7.2 and newer.
        engines: State by engine, "_FREQ" removed from the name; None for an engine that is off.
        unknown: Text that was not recognized, and fields whose name came a second time, in order.
    """

    timestamp: datetime | None = None
    ram_used_mib: float | None = None
    ram_total_mib: float | None = None
    ram_largest_free_block_mib: float | None = None
    swap_used_mib: float | None = None
    swap_total_mib: float | None = None
    swap_cached_mib: float | None = None
    iram_used_kib: float | None = None
    iram_total_kib: float | None = None
    cpu_load_percent: tuple[float | None, ...] = ()
    cpu_freq_mhz: tuple[float | None, ...] = ()
    gpu_load_percent: float | None = None
    gpu_freq_mhz: float | None = None
    gpu_cluster_freq_mhz: tuple[float, ...] = ()
    emc_load_percent: float | None = None
    emc_freq_mhz: float | None = None
    temperature_c: dict[str, float] = field(default_factory=dict)
    temperature_peak_c: dict[str, float] = field(default_factory=dict)
    power_mw: dict[str, float] = field(default_factory=dict)
    power_average_mw: dict[str, float] = field(default_factory=dict)
    power_peak_mw: dict[str, float] = field(default_factory=dict)
    engines: dict[str, EngineState | None] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing in the line was recognized."""
        return self == TegrastatsSample(unknown=self.unknown)


def parse_line(line: str) -> TegrastatsSample:
    """Return the values of a line of tegrastats; never raises, whatever the text.

    Where the start or end of a line was cut off, its complete fields are read.
    """
    line = " ".join(line.split())
    values: dict[str, Any] = {}
    unknown: list[list[str]] = []
    position, in_run = 0, False
    while word := _WORD.search(line, position):
        found, kept = _take_field(line, word.start(), values)
        text = word[0] if found is None else found[0]
        if found is None and in_run:
            unknown[-1].append(text)
        elif not kept:
            unknown.append([text])
        in_run = found is None
        position = word.end() if found is None else found.end()
    return TegrastatsSample(**values, unknown=tuple(map(" ".join, unknown)))


_Match = re.Match[str]
_Values = dict[str, Any]

# The number of digits is limited, so no text becomes infinity; patterns are ASCII, so \d matches what tegrastats prints.
_N = r"-?\d{1,9}(?:\.\d{1,6})?"
_END = r"(?= |$)"
_UNIT = r"([kMG])B"
_CORE = rf"(?:off|(?:{_N}%)?@{_N}|{_N}%)"
_CLOCK = rf"@(?:{_N}|\[{_N}(?:, ?{_N})*\])"
_LOAD = rf"(?:{_N} ?%|\[{_N}%(?:, ?{_N}%)*\])"  # the documentation has one form with a space
_STATE = rf"(off|{_LOAD}(?:{_CLOCK})?|{_CLOCK}|{_N})"
_ENGINE = r"(?:NV(?:ENC|DEC|JPG|DLA)|VIC|OFA|PVA|APE|AVP|MSENC|GR3D|EMC)\d*|\w{1,40}(?=_FREQ )"


def _field(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern + _END, re.ASCII)


_WORD = re.compile(r"[^ ]+")
_NUMBER = re.compile(_N, re.ASCII)
_LOADS = re.compile(rf"({_N}) ?%", re.ASCII)
_MIB = {"k": 1 / 1024, "M": 1.0, "G": 1024.0}


def _take_field(line: str, start: int, values: _Values) -> tuple[_Match | None, bool]:
    """Put the field at `start` into `values`; return its match, None if it is no field, and whether it was new."""
    for pattern, take in _FIELDS:
        if found := pattern.match(line, start):
            try:
                return found, take(found, values)
            except ValueError:  # a date that does not exist
                return None, False
    return None, False


def _put(values: _Values, new: _Values) -> bool:
    """Add a field's values, unless the line had them before."""
    if values.keys() & new.keys():
        return False
    values.update({name: value for name, value in new.items() if value is not None})
    return True


def _put_named(values: _Values, name: str, new: dict[str, Any]) -> bool:
    """Add to each dictionary its value for `name`, unless the first dictionary has one."""
    if name in values.get(next(iter(new)), {}):
        return False
    for mapping, value in new.items():
        values.setdefault(mapping, {})[name] = value
    return True


def _take_timestamp(found: _Match, values: _Values) -> bool:
    return _put(values, {"timestamp": datetime.strptime(found[0], "%m-%d-%Y %H:%M:%S")})


def _mib(number: str | None, unit: str | None) -> float | None:
    return float(number) * _MIB[unit] if number and unit else None


def _take_sizes(found: _Match, values: _Values, used_name: str, total_name: str, more_name: str) -> bool:
    used, total, unit, more, more_unit = found.groups()
    return _put(values, {used_name: _mib(used, unit), total_name: _mib(total, unit), more_name: _mib(more, more_unit)})


_take_ram = partial(_take_sizes, used_name="ram_used_mib", total_name="ram_total_mib", more_name="ram_largest_free_block_mib")
_take_swap = partial(_take_sizes, used_name="swap_used_mib", total_name="swap_total_mib", more_name="swap_cached_mib")


def _take_iram(found: _Match, values: _Values) -> bool:
    used, total, unit = found.groups()
    kib = 1024 * _MIB[unit]
    return _put(values, {"iram_used_kib": float(used) * kib, "iram_total_kib": float(total) * kib})


def _take_cpu(found: _Match, values: _Values) -> bool:
    cores = [core.strip() for core in found[1].split(",")]
    shared = _clocks(found[2] or "")  # the documented form has one clock for all cores, after the bracket
    states = [None if core == "off" else _state(core) for core in cores]
    clocks = [None if s is None else s.freq_mhz if s.freq_mhz is not None else max(shared, default=None) for s in states]
    loads = [s and s.load_percent for s in states]
    return _put(values, {"cpu_load_percent": tuple(loads), "cpu_freq_mhz": tuple(clocks)})


def _clocks(text: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(text.partition("@")[2])]


def _state(text: str) -> EngineState:
    """Parse `p%`, `p%@MHz`, `@MHz` or `MHz`, or the same with lists."""
    loads = [float(load) for load in _LOADS.findall(text.partition("@")[0])]
    clocks = _clocks(text) if "%" in text or "@" in text else [float(text)]
    return EngineState(sum(loads) / len(loads) if loads else None, max(clocks, default=None))


def _take_clocked(found: _Match, values: _Values, name: str) -> bool:
    if found[1] == "off":
        return True
    state = _state(found[1])
    new: _Values = {f"{name}_load_percent": state.load_percent, f"{name}_freq_mhz": state.freq_mhz}
    if name == "gpu":
        new["gpu_cluster_freq_mhz"] = tuple(_clocks(found[1])) if "@[" in found[1] else None
    return _put(values, new)


def _take_engine(found: _Match, values: _Values) -> bool:
    return _put_named(values, found[1], {"engines": None if found[2] == "off" else _state(found[2])})


def _take_temperature(found: _Match, values: _Values) -> bool:
    zone, *numbers = found.groups()
    known = {
        name: float(number)
        for name, number in zip(("temperature_c", "temperature_peak_c"), numbers, strict=True)
        if number and float(number) > _SWITCHED_OFF_C
    }
    return not known or _put_named(values, zone, known)


def _take_power(found: _Match, values: _Values) -> bool:
    rail, *numbers = found.groups()
    if rail in {"RAM", "SWAP", "IRAM"}:  # cut off before the unit
        return False
    names = ("power_mw", "power_average_mw", "power_peak_mw")
    known = {name: float(number) for name, number in zip(names, numbers, strict=True) if number}
    # A board may have several rails "NC", none of them connected: one stands for all.
    return _put_named(values, rail, known) or rail == "NC"


_SWITCHED_OFF_C = -250.0
_FIELDS: tuple[tuple[re.Pattern[str], Callable[[_Match, _Values], bool]], ...] = (
    (_field(r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d"), _take_timestamp),
    (_field(rf"RAM ({_N})/({_N}){_UNIT}(?: ?\(lfb (?:\d{{1,9}}x)?({_N}){_UNIT}\))?"), _take_ram),
    (_field(rf"SWAP ({_N})/({_N}){_UNIT}(?: ?\(cached ({_N}){_UNIT}\))?"), _take_swap),
    (_field(rf"IRAM ({_N})/({_N}){_UNIT}(?: ?\(lfb {_N}[kMG]B\))?"), _take_iram),
    # The name is missing where the start of the line was cut off; no other field is a list of loads.
    (_field(rf"(?:CPU |cpu )?\[({_CORE}(?:, ?{_CORE})*)\]({_CLOCK})?"), _take_cpu),
    (_field(rf"GR3D(?:_FREQ)? {_STATE}"), partial(_take_clocked, name="gpu")),
    (_field(rf"EMC(?:_FREQ)? {_STATE}"), partial(_take_clocked, name="emc")),
    (_field(rf"({_ENGINE})(?:_FREQ)? {_STATE}"), _take_engine),
    (_field(rf"([^\s@]{{1,64}})@({_N})C(?:/({_N})C)?"), _take_temperature),
    (_field(rf"([A-Za-z][\w.+-]{{0,63}}) ({_N})(?:mW)?/({_N})(?:mW)?(?:/({_N})(?:mW)?)?"), _take_power),
    (_field(rf"([A-Za-z][\w.+-]{{0,63}}) ({_N})mW()()"), _take_power),
)
