"""Sensitivity on the terminal and as a page: the layers and blocks that lose most in INT8."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emca_deploy._optional import import_optional
from emca_deploy.reporting.bars import bar_chart
from emca_deploy.reporting.formats import NONE, fixed, plain, signed
from emca_deploy.reporting.output import render_page, say, show_table
from emca_deploy.results.sensitivity import Cost, SensitivityReport, UnitSensitivity

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_sensitivity", "render_sensitivity", "require_page"]

HEADINGS = ("layer or block", "alone dB", "flips %", "kept dB", "flips %", "gain dB", "less error %", "MACs %")
"""Headings of the table on the terminal and on the page."""

_LEAST = frozenset({"gain dB"})
"""Column that a narrow terminal leaves out, since it follows from another one and the first line."""

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
    return (
        f"All in INT8: {_db(report.int8)} dB, {fixed(report.int8.flips_percent)}% flips, against fp32 on {images}; "
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
    charts = [(kind, _chart(report, kind)) for kind in ("block", "layer")]
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


def _chart(report: SensitivityReport, kind: str) -> str:
    units: Sequence[UnitSensitivity] = [unit for unit in report.units if unit.kind == kind]
    if not units:
        return ""
    rows = [(unit.name, (unit.noise_removed_percent, unit.noise_made_percent)) for unit in units]
    return bar_chart(f"{kind}s", f"Error of INT8 by {kind}", rows, _SERIES, "% of the error with everything in INT8")
