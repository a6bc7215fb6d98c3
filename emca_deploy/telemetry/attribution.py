"""Whose samples are whose: cuts telemetry at the windows in which each candidate ran, and turns power into energy an inference.

Candidates are interleaved in short blocks, so that a sample taken at the edge of a block mixes two of them. Therefore a counter
is read between the samples that lie wholly inside a block, and power from the samples inside it: neither reaches over an edge.
The mean power of these times the time of all blocks is the energy. Only where no block is as long as two samples lie apart is a
counter interpolated to the edges, which blurs neighbours, and said ("blurred").
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from emca_deploy.results.telemetry import Power, SourceTelemetry, ValueSummary
from emca_deploy.telemetry.recorder import Sample
from emca_deploy.telemetry.source import energy_channel, power_channel

__all__ = ["Window", "attribute"]

Window = tuple[int, int]
"""Begin and end in nanoseconds of time.monotonic_ns."""

_NS_PER_S = 1e9


@dataclass(frozen=True)
class _Series:
    times_ns: list[int]
    values: list[float]

    def inside(self, window: Window) -> slice:
        return slice(bisect_left(self.times_ns, window[0]), bisect_right(self.times_ns, window[1]))


@dataclass(frozen=True)
class _Power:
    watts: float
    samples: int
    blurred: bool = False


def attribute(
    samples: Sequence[Sample],
    windows: Mapping[str, Sequence[Window]],
    idle: Sequence[Window] = (),
    inferences: Mapping[str, int] | None = None,
) -> dict[str, dict[str, SourceTelemetry]]:
    """Return for each candidate, by source, what happened while it ran; what no sample reports is absent.

    The samples of all sources last from before the idle time to after the last window; windows do not overlap. While idle nothing
    ran: its power is subtracted, and both are given. Energy is per one of `inferences`, by candidate in all its windows.
    """
    series = _series(samples)
    result: dict[str, dict[str, SourceTelemetry]] = {}
    for candidate, its_windows in windows.items():
        result[candidate] = {}
        count = (inferences or {}).get(candidate, 0)
        for (source, owner), by_name in series.items():
            if owner in {None, candidate}:
                found = _of_source(by_name, its_windows, idle, count)
                if found.power or found.values:
                    result[candidate][source] = found
    return result


_Key = tuple[str, str | None]


def _series(samples: Sequence[Sample]) -> dict[_Key, dict[str, _Series]]:
    series: dict[_Key, dict[str, _Series]] = {}
    for sample in sorted(samples, key=lambda sample: sample.time_ns):
        by_name = series.setdefault((sample.source, sample.owner), {})
        for name, value in sample.values.items():
            one = by_name.setdefault(name, _Series([], []))
            one.times_ns.append(sample.time_ns)
            one.values.append(value)
    return series


def _of_source(by_name: Mapping[str, _Series], windows: Sequence[Window], idle: Sequence[Window], count: int) -> SourceTelemetry:
    power: dict[str, Power] = {}
    values: dict[str, ValueSummary] = {}
    for name, series in by_name.items():
        if (channel := energy_channel(name)) is not None:
            # A counter misses nothing between two samples: it replaces a power of the same channel.
            _put(power, channel, _counter_power(series, windows), _counter_power(series, idle), windows, count)
        elif (found := power_channel(name)) is not None:
            channel, factor = found
            if channel not in power:
                _put(power, channel, _gauge_power(series, windows, factor), _gauge_power(series, idle, factor), windows, count)
        elif (summary := _summary(series, windows)) is not None:
            values[name] = summary
    return SourceTelemetry(power, values)


def _put(
    power: dict[str, Power], channel: str, busy: _Power | None, idle: _Power | None, windows: Sequence[Window], count: int
) -> None:
    if busy is None:
        return
    mj_per_w = sum(end - begin for begin, end in windows) / _NS_PER_S * 1000 / count if count else None
    net_w = None if idle is None else busy.watts - idle.watts
    power[channel] = Power(
        power_w=busy.watts,
        energy_per_inference_mj=None if mj_per_w is None else busy.watts * mj_per_w,
        idle_power_w=None if idle is None else idle.watts,
        net_power_w=net_w,
        net_energy_per_inference_mj=None if net_w is None or mj_per_w is None else net_w * mj_per_w,
        samples=busy.samples,
        blurred=busy.blurred,
    )


def _counter_power(series: _Series, windows: Sequence[Window]) -> _Power | None:
    joules = seconds = 0.0
    used = 0
    for window in windows:
        inside = series.inside(window)
        times, values = series.times_ns[inside], series.values[inside]
        if len(times) > 1:
            joules += values[-1] - values[0]
            seconds += (times[-1] - times[0]) / _NS_PER_S
            used += len(times)
    if seconds > 0:
        return _Power(joules / seconds, used)
    return _blurred_counter_power(series, windows)


def _blurred_counter_power(series: _Series, windows: Sequence[Window]) -> _Power | None:
    joules = seconds = 0.0
    used = 0
    for begin_ns, end_ns in windows:
        if len(series.times_ns) > 1 and series.times_ns[0] <= begin_ns < end_ns <= series.times_ns[-1]:
            joules += _interpolate(series, end_ns) - _interpolate(series, begin_ns)
            seconds += (end_ns - begin_ns) / _NS_PER_S
            used += 1
    return _Power(joules / seconds, used, blurred=True) if seconds > 0 else None


def _interpolate(series: _Series, time_ns: int) -> float:
    right = min(max(bisect_left(series.times_ns, time_ns), 1), len(series.times_ns) - 1)
    t0, t1 = series.times_ns[right - 1], series.times_ns[right]
    v0, v1 = series.values[right - 1], series.values[right]
    return v0 + (v1 - v0) * (time_ns - t0) / (t1 - t0) if t1 > t0 else v1


def _gauge_power(series: _Series, windows: Sequence[Window], factor: float) -> _Power | None:
    """Integrate over each window: straight lines between its samples, held to its edges."""
    joules = seconds = 0.0
    used = 0
    for begin_ns, end_ns in windows:
        inside = series.inside((begin_ns, end_ns))
        times, values = series.times_ns[inside], series.values[inside]
        if not times or end_ns <= begin_ns:
            continue
        points = [(begin_ns, values[0]), *zip(times, values, strict=True), (end_ns, values[-1])]
        for (t0, v0), (t1, v1) in pairwise(points):
            joules += (v0 + v1) / 2 * (t1 - t0) / _NS_PER_S
        seconds += (end_ns - begin_ns) / _NS_PER_S
        used += len(times)
    return _Power(joules / seconds * factor, used) if seconds > 0 else None


def _summary(series: _Series, windows: Sequence[Window]) -> ValueSummary | None:
    values = [value for window in windows for value in series.values[series.inside(window)]]
    return ValueSummary(sum(values) / len(values), min(values), max(values), len(values)) if values else None
