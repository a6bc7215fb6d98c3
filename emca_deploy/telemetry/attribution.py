"""Splits samples among the candidates by the windows in which each ran, and turns power into energy per inference.

Candidates alternate in short blocks, so a sample at the edge of a block mixes two of them. A counter is therefore read between
the samples wholly inside a block, and power from the samples inside it: neither crosses an edge. Their mean power times the time
of all blocks is the energy. A counter is interpolated to the edges only where no block is longer than the time between two
samples; this mixes neighbouring blocks and is marked as "blurred".
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

from emca_deploy.results.telemetry import Power, Readings, SourceTelemetry, ValueSummary
from emca_deploy.telemetry.recorder import Sample
from emca_deploy.telemetry.source import power_channel

__all__ = ["Window", "attribute"]

Window = tuple[int, int]
"""Start and end in nanoseconds of time.monotonic_ns."""

_NS_PER_S = 1e9
_FEWEST_READINGS, _MOST_READINGS = 3, 240


@dataclass(frozen=True)
class _Series:
    times_ns: list[int]
    values: list[float]

    def inside(self, window: Window) -> slice:
        return slice(bisect_left(self.times_ns, window[0]), bisect_right(self.times_ns, window[1]))


def attribute(
    samples: Sequence[Sample],
    windows: Mapping[str, Sequence[Window]],
    idle: Sequence[Window] = (),
    inferences: Mapping[str, int] | None = None,
) -> dict[str, dict[str, SourceTelemetry]]:
    """Return the telemetry of each candidate by source; values without samples are absent.

    The samples of all sources span the time from before the idle windows to after the last window; windows do not overlap. Idle
    power is subtracted for the net values. `inferences` is each candidate's number in all its windows; energy is per inference.
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


def _series(samples: Sequence[Sample]) -> dict[tuple[str, str | None], dict[str, _Series]]:
    """Return the series by (source, owner), then by the name of the reading."""
    series: dict[tuple[str, str | None], dict[str, _Series]] = {}
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
    counted_s = sum(end - begin for begin, end in windows) / _NS_PER_S
    for name, series in by_name.items():
        found = power_channel(name)
        if found is None:
            if (summary := _summary(series, windows)) is not None:
                values[name] = summary
            continue
        channel, factor = found
        if factor is None:  # a counter misses nothing between two samples: it replaces a power of the same channel
            busy, rest = _counter_power(series, windows), _counter_power(series, idle)
        elif channel not in power:
            busy, rest = _gauge_power(series, windows, factor), _gauge_power(series, idle, factor)
        else:
            continue
        if busy is not None:
            power[channel] = _with_energy(busy, rest, counted_s * 1000 / count if count else None)
    return SourceTelemetry(power, values, _over_time(by_name, windows))


def _over_time(by_name: Mapping[str, _Series], windows: Sequence[Window]) -> dict[str, Readings]:
    """Return the readings inside the windows of the total power and of temperatures; few readings are none over time."""
    found: dict[str, Readings] = {}
    for name, series in by_name.items():
        kind, factor = power_channel(name) or ("", None)
        if kind == "total":
            points = _watts(series, windows) if factor is None else _inside(series, windows, factor)
        elif name.endswith("temperature_c"):
            points = _inside(series, windows)
        else:
            continue
        step = ceil(len(points) / _MOST_READINGS)
        if len(points) >= _FEWEST_READINGS:
            kept = points[::step]
            times = tuple(round((time_ns - windows[0][0]) / _NS_PER_S, 3) for time_ns, _ in kept)
            found.setdefault(
                "total_power_w" if kind else name, Readings(times, tuple(float(f"{value:.4g}") for _, value in kept))
            )
    return found


def _inside(series: _Series, windows: Sequence[Window], factor: float = 1.0) -> list[tuple[int, float]]:
    slices = [series.inside(window) for window in windows]
    return [(t, v * factor) for part in slices for t, v in zip(series.times_ns[part], series.values[part], strict=True)]


def _watts(series: _Series, windows: Sequence[Window]) -> list[tuple[int, float]]:
    """Return the power between neighbouring samples of a counter in joules, at the time of the later one."""
    found = []
    for part in (series.inside(window) for window in windows):
        pairs = pairwise(zip(series.times_ns[part], series.values[part], strict=True))
        found += [(t1, (v1 - v0) * _NS_PER_S / (t1 - t0)) for (t0, v0), (t1, v1) in pairs if t1 > t0]
    return found


def _with_energy(busy: Power, idle: Power | None, mj_per_w: float | None) -> Power:
    net_w = None if idle is None else busy.power_w - idle.power_w
    return replace(
        busy,
        energy_per_inference_mj=None if mj_per_w is None else busy.power_w * mj_per_w,
        idle_power_w=None if idle is None else idle.power_w,
        net_power_w=net_w,
        net_energy_per_inference_mj=None if net_w is None or mj_per_w is None else net_w * mj_per_w,
    )


def _counter_power(series: _Series, windows: Sequence[Window]) -> Power | None:
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
        return Power(joules / seconds, samples=used)
    return _blurred_counter_power(series, windows)


def _blurred_counter_power(series: _Series, windows: Sequence[Window]) -> Power | None:
    joules = seconds = 0.0
    used = 0
    for begin_ns, end_ns in windows:
        if len(series.times_ns) > 1 and series.times_ns[0] <= begin_ns < end_ns <= series.times_ns[-1]:
            joules += _interpolate(series, end_ns) - _interpolate(series, begin_ns)
            seconds += (end_ns - begin_ns) / _NS_PER_S
            used += 1
    return Power(joules / seconds, samples=used, blurred=True) if seconds > 0 else None


def _interpolate(series: _Series, time_ns: int) -> float:
    right = min(max(bisect_left(series.times_ns, time_ns), 1), len(series.times_ns) - 1)
    t0, t1 = series.times_ns[right - 1], series.times_ns[right]
    v0, v1 = series.values[right - 1], series.values[right]
    return v0 + (v1 - v0) * (time_ns - t0) / (t1 - t0) if t1 > t0 else v1


def _gauge_power(series: _Series, windows: Sequence[Window], factor: float) -> Power | None:
    """Integrate over each window: linear between samples, constant from the outer samples to the edges."""
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
    return Power(joules / seconds * factor, samples=used) if seconds > 0 else None


def _summary(series: _Series, windows: Sequence[Window]) -> ValueSummary | None:
    values = [value for window in windows for value in series.values[series.inside(window)]]
    return ValueSummary(sum(values) / len(values), min(values), max(values), len(values)) if values else None
