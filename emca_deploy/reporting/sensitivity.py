"""Sensitivity on the terminal and as a page: the layers and blocks that lose most in INT8."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emca_deploy._optional import import_optional
from emca_deploy.reporting import svg
from emca_deploy.reporting.axis import FOOT_PX, Axis, draw_x, fit_axis
from emca_deploy.reporting.formats import NONE, fixed, plain, shortened, signed
from emca_deploy.reporting.output import render_page, say, show_table
from emca_deploy.results.sensitivity import Cost, SensitivityReport, UnitSensitivity

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["bar_chart", "print_sensitivity", "render_sensitivity", "require_page", "sensitivity_chart"]

HEADINGS = ("layer or block", "alone dB", "flips %", "kept dB", "flips %", "gain dB", "less error %", "MACs %")
"""Headings of the table on the terminal and on the page."""

_LEAST = frozenset({"gain dB"})
"""Column that a narrow terminal leaves out, since it follows from another one and the first line."""

WIDTH = 620
_BAR, _GAP, _RIGHT = 9, 10, 46
_LONGEST_LABEL = 30
_SERIES = ("error removed by leaving it in float", "error made when quantized alone")


def require_page() -> None:
    """Check that the page can be made later.

    Raises:
        MissingError: Jinja2 is not installed.
    """
    import_optional("jinja2")


def print_sensitivity(report: SensitivityReport, console: "Console") -> None:
    """Print a row for each layer and block; the one that gains most from staying in float comes first."""
    say(console, f"{plain(report.artifact)}, placed for {plain(report.backend)}", "bold")
    say(console, f"{_summary(report)}.")
    rows = [_cells(unit, report.int8) for unit in report.units]
    longest = max((len(row[0]) for row in rows), default=0)
    fits = longest + sum(len(heading) + 2 for heading in HEADINGS[1:]) <= console.width
    shown = [index for index, heading in enumerate(HEADINGS) if fits or heading not in _LEAST]
    table = [([row[index] for index in shown], unit.kind == "block") for unit, row in zip(report.units, rows, strict=True)]
    show_table(console, [HEADINGS[index] for index in shown], table, gap=0)
    say(console, f"{_LEGEND} Bold: blocks.", "dim")


_LEGEND = (
    "alone: only it in INT8; kept: only it in float; gain: dB more than with all in INT8; less error: share of the error's power "
    "that keeping it in float removes; MACs: share of the multiply-adds; flips: images with another class than in fp32."
)


def _summary(report: SensitivityReport) -> str:
    images = f"{report.samples} calibration image{'s' if report.samples > 1 else ''}"
    flips = "" if report.int8.flips_percent is None else f"{fixed(report.int8.flips_percent)}% flips, "
    return (
        f"All in INT8: {_db(report.int8)} dB, {flips}against fp32 on {images}; "
        f"simulated in float with {plain(report.simulated_with)}, not run on the backend itself"
    )


def _cells(unit: UnitSensitivity, int8: Cost) -> tuple[str, ...]:
    return (
        plain(unit.pattern if unit.kind == "block" else unit.name),
        _db(unit.alone),
        fixed(unit.alone.flips_percent),
        _db(unit.kept_float),
        fixed(unit.kept_float.flips_percent),
        _gain(unit, int8),
        fixed(unit.noise_removed_percent, 1),
        fixed(unit.macs_percent, 1),
    )


def _db(cost: Cost) -> str:
    return "exact" if cost.sqnr_db is None else fixed(cost.sqnr_db, 1)


def _gain(unit: UnitSensitivity, int8: Cost) -> str:
    if unit.kept_float.sqnr_db is None or int8.sqnr_db is None:
        return NONE
    return signed(unit.kept_float.sqnr_db - int8.sqnr_db)


def render_sensitivity(report: SensitivityReport) -> str:
    """Return a self-contained page: a bar chart of the blocks, one of the layers, and the table.

    Raises:
        MissingError: Jinja2 is not installed.
    """
    charts = [(kind, sensitivity_chart(f"{kind}s", report, kind)) for kind in ("block", "layer")]
    caption = (
        "For each {}: the share of the total INT8 error that leaving it in float removes, and the share that it makes alone."
    )
    return render_page(
        "sensitivity.html",
        report=report,
        summary=_summary(report),
        headings=HEADINGS,
        rows=[(unit.kind, _cells(unit, report.int8)) for unit in report.units],
        charts=[(f"{kind.capitalize()}s", caption.format(kind), chart) for kind, chart in charts if chart],
        legend=_LEGEND,
    )


def sensitivity_chart(name: str, report: SensitivityReport, kind: str, most: int | None = None) -> str:
    """Return the bars of the first layers or blocks as an SVG element with a unique `name` on its page; "" without any."""
    units: Sequence[UnitSensitivity] = [unit for unit in report.units if unit.kind == kind][:most]
    if not units:
        return ""
    rows = [(unit.name, (unit.noise_removed_percent, unit.noise_made_percent)) for unit in units]
    return bar_chart(name, f"Error of INT8 by {kind}", rows, _SERIES, "% of the error with everything in INT8")


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
