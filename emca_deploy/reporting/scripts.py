"""The scripts of a page: its table, and uPlot where a plot can be zoomed into."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emca_deploy.reporting.details.cell import CellDetails

__all__ = ["Scripts", "scripts_of"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Scripts:
    """Texts of a page's scripts.

    Attributes:
        table: Script that sorts, filters and copies the table.
        zoom: Script that opens plots to zoom into; "" without such plots, as are the following.
        library: uPlot.
        style: Style sheet of uPlot.
        licence: Licence of uPlot.
    """

    table: str
    zoom: str = ""
    library: str = ""
    style: str = ""
    licence: str = ""


def scripts_of(details: Sequence[CellDetails]) -> Scripts:
    """Return the scripts of a page with these details."""
    table = _text("table.js")
    if not any(drawing.zoom for each in details for drawing in each.drawings):
        return Scripts(table)
    vendor = "vendor/uplot"
    return Scripts(
        table,
        _text("zoom.js"),
        _text(f"{vendor}/uPlot.iife.min.js"),
        _text(f"{vendor}/uPlot.min.css"),
        _text(f"{vendor}/LICENSE"),
    )


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8").strip()
