"""The plots of a sweep as SVG: accuracy against time per image."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from emca_deploy.reporting import svg
from emca_deploy.reporting.axis import FOOT_PX, draw_x, draw_y, fit_axis
from emca_deploy.reporting.formats import fixed, shortened, significant
from emca_deploy.reporting.labels import Box, place_labels
from emca_deploy.reporting.plots import error_bars
from emca_deploy.results.sweep import SweepRow, ms_per_image

__all__ = ["MOST_ROWS", "front_plot", "series_of", "speed_plot"]

WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP = 58, 14, 30
_MOST_LABELS = 12
_NAME_PX, _ROW_PX = 250, 22
MOST_ROWS = 25
"""Most cells in a plot without accuracies."""


def series_of(rows: Sequence[SweepRow]) -> dict[str, int]:
    """Return the number of each series by its name: a backend with a precision."""
    return {name: index for index, name in enumerate(dict.fromkeys(series_name(row) for row in rows))}


def series_name(row: SweepRow) -> str:
    """Return the series of a cell."""
    return f"{row.cell.backend} {row.cell.precision}"


def front_plot(
    name: str, rows: Sequence[SweepRow], front: Sequence[str], names: Mapping[str, str], series: Mapping[str, int]
) -> str:
    """Return an SVG element with accuracy against time per image, 95 % intervals as bars, and the Pareto front as a line.

    Args:
        name: name of the element, unique on its page.
        rows: finished cells with an accuracy of the same metric.
        front: keys of those that get a label and that the line joins.
        names: name of each cell.
        series: number of each series.
    """
    what = "top-1 accuracy, %" if rows[0].metric == "top-1" else "average precision, %"
    bottom = _HEIGHT - FOOT_PX
    times, heights = [_times(row) for row in rows], [_heights(row) for row in rows]
    x_axis = fit_axis([value for each in times for value in each], _LEFT, WIDTH - _RIGHT, margin=0.06)
    y_axis = fit_axis([value for each in heights for value in each], bottom, _TOP, may_be_log=False, margin=0.08)
    shapes = [svg.text(0, 14, what, muted=True), *draw_y(y_axis, _LEFT, WIDTH - _RIGHT)]
    shapes += draw_x(x_axis, _TOP, bottom, f"time per image, ms{' (log scale)' if x_axis.log else ''}", WIDTH)
    shapes += _steps(
        [(x_axis.px(t[1]), y_axis.px(h[1])) for row, t, h in zip(rows, times, heights, strict=True) if row.key in front]
    )
    bars, marks, centres, taken = [], [], [], []
    for row, (least, time, most), (low, value, high) in zip(rows, times, heights, strict=True):
        index = series[series_name(row)]
        x, y = x_axis.px(time), y_axis.px(value)
        ends = (x_axis.px(least), x_axis.px(most)), (y_axis.px(low), y_axis.px(high))
        bars += error_bars((x, y), *ends, svg.COLOURS[index % len(svg.COLOURS)])
        marks.append(svg.marker(index, x, y, 6 if row.key in front else 4))
        taken.append(Box(x - 7, y - 7, x + 7, y + 7))
        centres.append((x, y))
    labelled = [index for index, row in enumerate(rows) if row.key in front][:_MOST_LABELS]
    words = [shortened(names[rows[index].key], svg.fitting(300)) for index in labelled]
    places = place_labels(words, [centres[i] for i in labelled], taken, Box(_LEFT + 2, 18, WIDTH - 2, bottom - 2))
    leaders = [svg.line(centres[i], place.near, opacity=0.4) for i, place in zip(labelled, places, strict=True) if place.far]
    texts = [svg.text(place.x, place.y, word) for word, place in zip(words, places, strict=True)]
    told = "; ".join(
        f"{names[row.key]}: {fixed(row.accuracy)} % at {significant(ms_per_image(row))} ms" for row in rows if row.key in front
    )
    size = (WIDTH, _HEIGHT)
    return svg.document(
        name, size, f"{what} against time per image", f"On the front: {told}", shapes + leaders + bars + marks + texts
    )


def speed_plot(name: str, rows: Sequence[SweepRow], names: Mapping[str, str], series: Mapping[str, int]) -> str:
    """Return an SVG element with the time per image of cells without an accuracy, a row each, with 95 % intervals.

    Args:
        name: name of the element, unique on its page.
        rows: finished cells, the fastest first; the first `MOST_ROWS` are shown.
        names: name of each cell.
        series: number of each series.
    """
    rows = rows[:MOST_ROWS]
    axis = fit_axis([value for row in rows for value in _times(row)], _NAME_PX, WIDTH - _RIGHT, margin=0.06)
    bottom = 8 + _ROW_PX * len(rows)
    shapes = draw_x(axis, 8, bottom, f"time per image, ms{' (log scale)' if axis.log else ''}", WIDTH)
    for index, row in enumerate(rows):
        low, time, high = map(axis.px, _times(row))
        y, number = 8 + _ROW_PX * (index + 0.5), series[series_name(row)]
        shapes.append(svg.text(0, y + 4.5, shortened(names[row.key], svg.fitting(_NAME_PX - 12))))
        shapes.append(svg.line((low, y), (high, y), colour=svg.COLOURS[number % len(svg.COLOURS)], width=2))
        shapes.append(svg.marker(number, time, y, 5))
    told = "; ".join(f"{names[row.key]}: {significant(ms_per_image(row))} ms" for row in rows)
    return svg.document(name, (WIDTH, bottom + FOOT_PX), "Time per image", told, shapes)


def _times(row: SweepRow) -> tuple[float, float, float]:
    time = ms_per_image(row)
    if row.cell.scenario == "offline" or row.p50_ci95_ms is None:
        return time, time, time
    low, high = (end / row.cell.batch for end in row.p50_ci95_ms)
    return low, time, high


def _heights(row: SweepRow) -> tuple[float, float, float]:
    """Return the accuracy and its interval: that of the paired drop from the reference."""
    value = row.accuracy or 0.0
    if row.drop is None or row.drop_ci95 is None:
        return value, value, value
    low, high = row.drop_ci95
    return value + row.drop - high, value, value + row.drop - low


def _steps(points: Sequence[svg.Point]) -> list[str]:
    """Return the front as a staircase, from the fastest cell to the most accurate one."""
    shapes = []
    for (left, low), (right, high) in pairwise(sorted(points)):
        shapes.append(svg.line((left, low), (right, low), dash="5 4", opacity=0.5))
        shapes.append(svg.line((right, low), (right, high), dash="5 4", opacity=0.5))
    return shapes
