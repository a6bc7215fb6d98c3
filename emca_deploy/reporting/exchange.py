"""Tables for other programs: CSV with full precision, and Markdown."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emca_deploy.reporting.ci import markdown_text
from emca_deploy.reporting.formats import NONE, plain
from emca_deploy.reporting.table import Column

__all__ = ["as_csv", "as_markdown"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """Return a CSV document with a heading; every record has the same names, and an unknown value is empty.

    A text that a spreadsheet would run as a formula begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for index, record in enumerate(records):
        if not index:
            writer.writerow(record)
        writer.writerow(_cell(value) for value in record.values())
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str):
        return value
    text = plain(" ".join(value.split()))
    return f"'{text}" if text.startswith(_FORMULA) else text


def as_markdown(columns: Sequence[Column], chosen: Sequence[int] = ()) -> str:
    """Return a Markdown table with the first column on the left and intervals in brackets; rows in `chosen` are bold."""
    shown = [column for column in columns if any(cell != NONE for cell in column.cells)]
    lines = [_line([column.heading for column in shown]), _line(["---", *["---:"] * (len(shown) - 1)], text=False)]
    for index in range(len(shown[0].cells)):
        cells = [_with_interval(column, index) for column in shown]
        lines.append(_line(cells, bold=index in chosen))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], *, text: bool = True, bold: bool = False) -> str:
    words = [markdown_text(cell) if text else cell for cell in cells]
    return f"| {' | '.join(f'**{word}**' if bold else word for word in words)} |"


def _with_interval(column: Column, index: int) -> str:
    limits = column.interval[index] if column.interval else ""
    return f"{column.cells[index]} ({limits})" if limits else column.cells[index]
