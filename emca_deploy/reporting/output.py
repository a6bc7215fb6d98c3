"""Output of every report: lines and tables on the terminal, and pages from a template. Text from outside stays text."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emca_deploy._optional import import_optional
from emca_deploy._version import __version__
from emca_deploy.reporting.formats import plain

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["render_page", "say", "show_table"]


def say(console: "Console", text: str, style: str = "", *, wrap: bool = True) -> None:
    """Print text without markup and highlighting. Without `wrap`, a path can be copied."""
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=not wrap)


def show_table(
    console: "Console",
    headings: Sequence[str],
    rows: Iterable[tuple[Sequence[str], bool]],
    *,
    left: int = 1,
    gap: int | None = 1,
) -> None:
    """Print a table. A row is its cells, and whether they are bold.

    The first `left` columns fold where space is short. `gap` is the number of spaces between columns, in addition to the box's
    own; with None the other columns fold as well.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1) if gap is None else (0, gap, 0, 0))
    for index, heading in enumerate(headings):
        first = index < left
        table.add_column(heading, justify="left" if first else "right", no_wrap=not first and gap is not None, overflow="fold")
    for cells, bold in rows:
        table.add_row(*map(Text, cells), style="bold" if bold else "")
    console.print(table)


def render_page(template: str, **values: Any) -> str:
    """Return a page from a template in this folder. All text in the values is escaped.

    Raises:
        MissingError: Jinja2 is not installed.
    """
    jinja2 = import_optional("jinja2")
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: plain(value) if type(value) is str else value,  # Markup is the package's own SVG, already plain
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (folder / "page.css").read_text(encoding="utf-8").rstrip()
    return str(environment.get_template(template).render(version=__version__, style=style, **values))
