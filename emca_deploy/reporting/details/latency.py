"""The latency of one candidate or cell: its distribution and its calls in order, as SVG and as numbers to zoom into."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from emca_deploy.reporting import svg
from emca_deploy.reporting.axis import FOOT_PX, Axis, draw_x, draw_y, fit_axis
from emca_deploy.reporting.formats import significant
from emca_deploy.reporting.plots import outline
from emca_deploy.results.latency import LatencyResult

__all__ = ["HEIGHT", "LEFT", "WIDTH", "Zoom", "distribution_plot", "time_plot", "zoom_of"]

WIDTH, HEIGHT = 460, 150
LEFT = 58
_STEPS = 90
_UNITS_PER_MEDIAN = 1000


@dataclass(frozen=True)
class Zoom:
    """Numbers of a plot over time as whole multiples of a unit, which take a third of the space of decimals.

    Attributes:
        unit: Value of 1.
        low: Value of 0.
        step: Difference between two neighbouring points on the horizontal axis.
        label: Title of the horizontal axis.
        series: Numbers separated by blanks: the values; or the lowest, the median and the highest of neighbouring ones.
        places: Place of each point on the horizontal axis, separated by blanks; "" for multiples of `step`.
    """

    unit: float
    low: float
    step: float
    label: str
    series: tuple[str, ...]
    places: str = ""


def zoom_of(values: Sequence[float], most: int, step: float = 1.0, label: str = "call") -> Zoom | None:
    """Return at most about `most` numbers for values in order; None for fewer than two values."""
    if len(values) < 2:
        return None
    size = 1 if len(values) <= most else ceil(3 * len(values) / most)
    parts = [sorted(values[start : start + size]) for start in range(0, len(values), size)]
    columns: list[list[float]] = [[part[place * (len(part) - 1) // 2] for part in parts] for place in range(3 if size > 1 else 1)]
    low, middle = min(values), sorted(values)[len(values) // 2]
    unit = abs(middle) / _UNITS_PER_MEDIAN or 1 / _UNITS_PER_MEDIAN
    texts = tuple(" ".join(f"{(value - low) / unit:.0f}" for value in column) for column in columns)
    return Zoom(float(f"{unit:.6g}"), float(f"{low:.6g}"), size * step, label, texts)


def distribution_plot(name: str, result: LatencyResult) -> str:
    """Return an SVG element with the distribution of the calls of one cell; "" without samples."""
    samples = sorted(result.samples_ms)
    if not samples:
        return ""
    summary = result.latency_ms
    axis = fit_axis([samples[0], samples[-1]], 6, WIDTH - 6, margin=0.03)
    bottom = HEIGHT - FOOT_PX
    shapes = draw_x(axis, 6, bottom, f"latency of one call, ms{' (log scale)' if axis.log else ''}", WIDTH)
    shapes.append(svg.path(outline(samples, axis, bottom, bottom - 12), svg.COLOURS[0]))
    for value, dash in ((summary.p50, ""), (summary.p99, "3 3")):
        shapes.append(svg.line((axis.px(value), bottom), (axis.px(value), 8), width=2, dash=dash))
    told = f"p50 {significant(summary.p50)} ms, p99 {significant(summary.p99)} ms, {result.samples:,} calls"
    return svg.document(name, (WIDTH, HEIGHT), "Latency distribution", told, shapes)


def time_plot(name: str, result: LatencyResult) -> str:
    """Return an SVG element with the latency of the calls of one cell in order; "" without samples.

    Each step is the range of the calls in it, with their median; a dashed line is the start of another process.
    """
    samples = result.samples_ms
    if not samples:
        return ""
    bottom = HEIGHT - FOOT_PX
    x_axis = Axis(0.0, float(len(samples)), LEFT, WIDTH - 6)
    y_axis = fit_axis([min(samples), max(samples)], bottom, 10)
    size = max(ceil(len(samples) / _STEPS), 1)
    parts = [sorted(samples[start : start + size]) for start in range(0, len(samples), size)]
    places = [x_axis.px(min((index + 0.5) * size, len(samples))) for index in range(len(parts))]
    upper = [(x, y_axis.px(part[-1])) for x, part in zip(places, parts, strict=True)]
    lower = [(x, y_axis.px(part[0])) for x, part in zip(places, parts, strict=True)]
    middle = [(x, y_axis.px(part[len(part) // 2])) for x, part in zip(places, parts, strict=True)]
    shapes = [*draw_y(y_axis, LEFT, WIDTH - 6, 24), *draw_x(x_axis, 10, bottom, "call", WIDTH, 80)]
    if starts := [x_axis.px(start) for start in _starts(result)]:
        shapes.append(svg.lines([((x, bottom), (x, 10)) for x in starts], dash="4 3", opacity=0.6))
    shapes += [svg.path([*upper, *reversed(lower)], svg.COLOURS[5]), svg.polyline(middle, svg.COLOURS[0])]
    told = f"{len(samples):,} calls in order, from {significant(min(samples))} to {significant(max(samples))} ms"
    return svg.document(name, (WIDTH, HEIGHT), "Latency over time, ms", told, shapes)


def _starts(result: LatencyResult) -> list[float]:
    """Return the number of calls before each change of the process."""
    found, calls = [], 0
    for index, count in enumerate(result.block_calls):
        if index and result.block_builds and result.block_builds[index] != result.block_builds[index - 1]:
            found.append(float(calls))
        calls += count
    return found
