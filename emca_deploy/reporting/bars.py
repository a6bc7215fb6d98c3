"""A horizontal bar chart as SVG: each row has a bar for every series."""

from collections.abc import Sequence

from emca_deploy.reporting import svg
from emca_deploy.reporting.axis import FOOT_PX, Axis, draw_x, fit_axis
from emca_deploy.reporting.formats import fixed, plain, shortened

__all__ = ["bar_chart"]

WIDTH = 620
_BAR, _GAP, _RIGHT = 9, 10, 46
_LONGEST_LABEL = 30


def bar_chart(name: str, title: str, rows: Sequence[tuple[str, tuple[float, ...]]], series: Sequence[str], unit: str) -> str:
    """Return an SVG element with a unique `name` on its page; a row is a label and a value for each of the series."""
    labels = [shortened(label, _LONGEST_LABEL) for label, _ in rows]
    left = 12 + max(svg.text_width_px(label) for label in labels)
    top = 8 + 20 * len(series)
    height = _BAR * len(series) + _GAP
    bottom = top + height * len(rows)
    axis = _axis([value for _, values in rows for value in values], left)
    shapes = []
    for index, words in enumerate(series):
        shapes += [_bar(0, 12, 4 + 20 * index, index), svg.text(20, 4 + 20 * index + _BAR, words)]
    shapes += draw_x(axis, top, bottom, unit, WIDTH)
    shapes.append(svg.line((axis.px(0), top), (axis.px(0), bottom), opacity=0.6))
    for index, ((_, values), label) in enumerate(zip(rows, labels, strict=True)):
        shapes += _row(values, label, axis, top + height * index)
    told = "; ".join(f"{plain(label)}: {', '.join(fixed(value, 1) for value in values)}" for label, values in rows)
    return svg.document(name, (WIDTH, bottom + FOOT_PX), title, f"{', '.join(series)} ({unit}). {told}", shapes)


def _axis(values: Sequence[float], left: float) -> Axis:
    fitted = fit_axis([0.0, *values], left, WIDTH - _RIGHT, may_be_log=False, margin=0.02)
    low = 0.0 if min(values) >= 0 else fitted.low
    return Axis(low, fitted.high, fitted.start_px, fitted.end_px)


def _row(values: tuple[float, ...], label: str, axis: Axis, top: float) -> list[str]:
    middle = top + (_BAR * len(values) + _GAP) / 2
    shapes = [svg.text(axis.start_px - 8, middle + 4.5, label, anchor="end")]
    for index, value in enumerate(values):
        y = top + _GAP / 2 + _BAR * index
        shapes.append(_bar(axis.px(0), axis.px(value), y, index))
    end = max(axis.px(max(value, 0)) for value in values)
    shapes.append(svg.text(end + 5, middle + 4.5, fixed(values[0], 1), muted=True))
    return shapes


def _bar(start: float, end: float, y: float, index: int) -> str:
    """Return the bar of series `index`."""
    return svg.box(start, end, y, _BAR - 1, svg.COLOURS[index % len(svg.COLOURS)])
