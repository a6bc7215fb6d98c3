"""A horizontal bar chart as SVG: a few bars a row, the same series in every row."""

from collections.abc import Sequence
from dataclasses import dataclass

from emca_deploy.reporting import svg
from emca_deploy.reporting.axis import Axis, fit_axis
from emca_deploy.reporting.formats import fixed, plain, shortened

__all__ = ["BarRow", "bar_chart"]

WIDTH = 620
_BAR, _GAP, _FOOT, _RIGHT = 9, 10, 48, 46
_LONGEST_LABEL = 30


@dataclass(frozen=True)
class BarRow:
    """A row: what it is about, and a value for each series."""

    label: str
    values: tuple[float, ...]


def bar_chart(name: str, title: str, rows: Sequence[BarRow], series: Sequence[str], unit: str) -> str:
    """Return an SVG element.

    `name` is unique on its page; `series` says what each of a row's bars is.
    """
    labels = [shortened(row.label, _LONGEST_LABEL) for row in rows]
    left = 12 + max(svg.text_width_px(label) for label in labels)
    top = 8 + 20 * len(series)
    height = _BAR * len(series) + _GAP
    bottom = top + height * len(rows)
    axis = _axis([value for row in rows for value in row.values], left)
    shapes = []
    for index, words in enumerate(series):
        shapes += [_bar(0, 12, 4 + 20 * index, index), svg.text(20, 4 + 20 * index + _BAR, words)]
    shapes += _scale(axis, top, bottom, unit)
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        shapes += _row(row, label, axis, top + height * index)
    told = "; ".join(f"{plain(row.label)}: {', '.join(fixed(value, 1) for value in row.values)}" for row in rows)
    return svg.document(name, (WIDTH, bottom + _FOOT), title, f"{', '.join(series)} ({unit}). {told}", shapes)


def _axis(values: Sequence[float], left: float) -> Axis:
    fitted = fit_axis([0.0, *values], left, WIDTH - _RIGHT, may_be_log=False, margin=0.02)
    low = 0.0 if min(values) >= 0 else fitted.low
    return Axis(low, fitted.high, fitted.start_px, fitted.end_px)


def _scale(axis: Axis, top: float, bottom: float, unit: str) -> list[str]:
    shapes = [svg.line((axis.px(0), top), (axis.px(0), bottom), opacity=0.6)]
    for value, words in axis.ticks():
        x = axis.px(value)
        shapes.append(svg.line((x, top), (x, bottom), opacity=0.13))
        shapes.append(svg.text(x, bottom + 17, words, anchor="middle"))
    shapes.append(svg.text((axis.start_px + axis.end_px) / 2, bottom + 38, unit, anchor="middle", muted=True))
    return shapes


def _row(row: BarRow, label: str, axis: Axis, top: float) -> list[str]:
    middle = top + (_BAR * len(row.values) + _GAP) / 2
    shapes = [svg.text(axis.start_px - 8, middle + 4.5, label, anchor="end")]
    for index, value in enumerate(row.values):
        y = top + _GAP / 2 + _BAR * index
        shapes.append(_bar(axis.px(0), axis.px(value), y, index))
    end = max(axis.px(max(value, 0)) for value in row.values)
    shapes.append(svg.text(end + 5, middle + 4.5, fixed(row.values[0], 1), muted=True))
    return shapes


def _bar(start: float, end: float, y: float, index: int) -> str:
    """Return a bar; the first series is a solid, the others as high but pale, so that not colour alone tells them apart."""
    return svg.box(start, end, y, _BAR - 1, svg.COLOURS[index % len(svg.COLOURS)])
