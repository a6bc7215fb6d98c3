"""One line of tegrastats, as a record: every form of every field from JetPack 3 to 7.

A field that is not understood is kept as text and never fatal, so that a new release costs a number and not the run. Text that is
no tegrastats line at all is therefore a sample in which nothing was recognised (`TegrastatsSample.is_empty`), not an error.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["EngineState", "TegrastatsSample", "parse_line"]


@dataclass(frozen=True)
class EngineState:
    """An engine that is on; None is what tegrastats does not say.

    Attributes:
        load_percent: mean of its units where each is listed.
        freq_mhz: highest of its units where each is listed.
    """

    load_percent: float | None = None
    freq_mhz: float | None = None


@dataclass(frozen=True)
class TegrastatsSample:
    """What one line says. What it does not say is None, or missing from its dictionary: never zero.

    Attributes:
        timestamp: local time of the board, in whole seconds; JetPack 4 prints none.
        ram_used_mib: use of the memory that processor and GPU share.
        ram_largest_free_block_mib: the size of the largest free blocks ("lfb").
        iram_used_kib: use of the small memory inside the chip, as root on older boards.
        cpu_load_percent: one a core, None for one that is off (or of unknown load, then it has a frequency).
        cpu_freq_mhz: one a core, None for one that is off.
        gpu_freq_mhz: the highest of the GPU's clusters; a cluster that is gated reads 0.
        gpu_cluster_freq_mhz: each cluster, where they are listed.
        temperature_c: current value by zone, named as printed; zones that are switched off (-256 C) are left out.
        temperature_peak_c: highest value by zone, JetPack 7.2 and newer.
        power_mw: current value by rail, named as printed; it may be negative. A rail "NC" is not connected. Rails may include
            one another: they do not simply add up.
        power_average_mw: by rail, since that tegrastats was started.
        power_peak_mw: highest by rail, JetPack 7.2 and newer.
        engines: state by engine, "_FREQ" removed from the name; None for one that is off.
        unknown: runs of text that were not understood, and fields whose name came a second time, in their order.
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
        """Whether nothing in the line was recognised."""
        return self == TegrastatsSample(unknown=self.unknown)


def parse_line(line: str) -> TegrastatsSample:
    """Return what a line of tegrastats says; never raises, whatever the text.

    Of a line whose beginning or end was cut off, the whole fields are read.
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

# Digits are bounded so that no text becomes an infinity, and ASCII so that \d is what tegrastats prints.
_N = r"-?\d{1,9}(?:\.\d{1,6})?"
_END = r"(?= |$)"
_UNIT = r"([kMG])B"
_CORE = rf"(?:off|(?:{_N}%)?@{_N}|{_N}%)"
_CLOCK = rf"@(?:{_N}|\[{_N}(?:, ?{_N})*\])"
_LOAD = rf"(?:{_N} ?%|\[{_N}%(?:, ?{_N}%)*\])"  # one form is documented with a blank
_STATE = rf"(off|{_LOAD}(?:{_CLOCK})?|{_CLOCK}|{_N})"
_ENGINE = r"(?:NV(?:ENC|DEC|JPG|DLA)|VIC|OFA|PVA|APE|AVP|MSENC|GR3D|EMC)\d*|\w{1,40}(?=_FREQ )"


def _field(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern + _END, re.ASCII)


_WORD = re.compile(r"[^ ]+")
_NUMBER = re.compile(_N, re.ASCII)
_LOADS = re.compile(rf"({_N}) ?%", re.ASCII)
_KIB = {"k": 1.0, "M": 1024.0, "G": 1024.0**2}


def _take_field(line: str, start: int, values: _Values) -> tuple[_Match | None, bool]:
    """Put the field that begins at `start` into `values`; return its match, None if it is none, and whether it was new."""
    for pattern, take in _FIELDS:
        if found := pattern.match(line, start):
            try:
                return found, take(found, values)
            except ValueError:  # a date that does not exist
                return None, False
    return None, False


def _put(values: _Values, new: _Values) -> bool:
    """Add what a field says unless the line said it before."""
    if values.keys() & new.keys():
        return False
    values.update({name: value for name, value in new.items() if value is not None})
    return True


def _put_named(values: _Values, name: str, new: dict[str, Any]) -> bool:
    """Add to each dictionary its value for `name`, unless the first of them has one."""
    if name in values.get(next(iter(new)), {}):
        return False
    for mapping, value in new.items():
        values.setdefault(mapping, {})[name] = value
    return True


def _take_timestamp(found: _Match, values: _Values) -> bool:
    return _put(values, {"timestamp": datetime.strptime(found[0], "%m-%d-%Y %H:%M:%S")})


def _kib(number: str | None, unit: str | None) -> float | None:
    return float(number) * _KIB[unit] if number and unit else None


def _mib(number: str | None, unit: str | None) -> float | None:
    kib = _kib(number, unit)
    return None if kib is None else kib / 1024


def _take_ram(found: _Match, values: _Values) -> bool:
    used, total, unit, block, block_unit = found.groups()
    sizes = {"ram_used_mib": _mib(used, unit), "ram_total_mib": _mib(total, unit)}
    return _put(values, {**sizes, "ram_largest_free_block_mib": _mib(block, block_unit)})


def _take_swap(found: _Match, values: _Values) -> bool:
    used, total, unit, cached, cached_unit = found.groups()
    sizes = {"swap_used_mib": _mib(used, unit), "swap_total_mib": _mib(total, unit)}
    return _put(values, {**sizes, "swap_cached_mib": _mib(cached, cached_unit)})


def _take_iram(found: _Match, values: _Values) -> bool:
    used, total, unit = found.groups()
    return _put(values, {"iram_used_kib": _kib(used, unit), "iram_total_kib": _kib(total, unit)})


def _take_cpu(found: _Match, values: _Values) -> bool:
    cores = [core.strip() for core in found[1].split(",")]
    shared = _clocks(found[2] or "")  # the documented form has one clock for all, behind the bracket
    states = [None if core == "off" else _state(core) for core in cores]
    clocks = [None if s is None else s.freq_mhz if s.freq_mhz is not None else max(shared, default=None) for s in states]
    loads = [s and s.load_percent for s in states]
    return _put(values, {"cpu_load_percent": tuple(loads), "cpu_freq_mhz": tuple(clocks)})


def _clocks(text: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(text.partition("@")[2])]


def _state(text: str) -> EngineState:
    """Return what `p%`, `p%@MHz`, `@MHz`, `MHz`, or the same with lists, says."""
    loads = [float(load) for load in _LOADS.findall(text.partition("@")[0])]
    clocks = _clocks(text) if "%" in text or "@" in text else [float(text)]
    return EngineState(sum(loads) / len(loads) if loads else None, max(clocks, default=None))


def _take_gpu(found: _Match, values: _Values) -> bool:
    if found[1] == "off":
        return True
    state = _state(found[1])
    clusters = tuple(_clocks(found[1])) if "@[" in found[1] else None
    new = {"gpu_load_percent": state.load_percent, "gpu_freq_mhz": state.freq_mhz, "gpu_cluster_freq_mhz": clusters}
    return _put(values, new)


def _take_emc(found: _Match, values: _Values) -> bool:
    if found[1] == "off":
        return True
    state = _state(found[1])
    return _put(values, {"emc_load_percent": state.load_percent, "emc_freq_mhz": state.freq_mhz})


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
    if rail in {"RAM", "SWAP", "IRAM"}:  # cut off before their unit
        return False
    names = ("power_mw", "power_average_mw", "power_peak_mw")
    known = {name: float(number) for name, number in zip(names, numbers, strict=True) if number}
    # Boards have several rails "NC", all of them not connected: one of them says it.
    return _put_named(values, rail, known) or rail == "NC"


_SWITCHED_OFF_C = -250.0
_FIELDS: tuple[tuple[re.Pattern[str], Callable[[_Match, _Values], bool]], ...] = (
    (_field(r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d"), _take_timestamp),
    (_field(rf"RAM ({_N})/({_N}){_UNIT}(?: ?\(lfb (?:\d{{1,9}}x)?({_N}){_UNIT}\))?"), _take_ram),
    (_field(rf"SWAP ({_N})/({_N}){_UNIT}(?: ?\(cached ({_N}){_UNIT}\))?"), _take_swap),
    (_field(rf"IRAM ({_N})/({_N}){_UNIT}(?: ?\(lfb {_N}[kMG]B\))?"), _take_iram),
    # The name is missing where a line's beginning was cut off; nothing else is a list of loads.
    (_field(rf"(?:CPU |cpu )?\[({_CORE}(?:, ?{_CORE})*)\]({_CLOCK})?"), _take_cpu),
    (_field(rf"GR3D(?:_FREQ)? {_STATE}"), _take_gpu),
    (_field(rf"EMC(?:_FREQ)? {_STATE}"), _take_emc),
    (_field(rf"({_ENGINE})(?:_FREQ)? {_STATE}"), _take_engine),
    (_field(rf"([^\s@]{{1,64}})@({_N})C(?:/({_N})C)?"), _take_temperature),
    (_field(rf"([A-Za-z][\w.+-]{{0,63}}) ({_N})(?:mW)?/({_N})(?:mW)?(?:/({_N})(?:mW)?)?"), _take_power),
    (_field(rf"([A-Za-z][\w.+-]{{0,63}}) ({_N})mW()()"), _take_power),
)
