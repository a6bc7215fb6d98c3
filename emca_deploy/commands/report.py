"""`emca-deploy report`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from emca_deploy.commands._console import echo, table_console
from emca_deploy.commands._types import INPUT, OUTPUT, option

if TYPE_CHECKING:
    from emca_deploy.api.report import Format

__all__ = ["command"]


@click.command("report")
@click.argument("folder", metavar="DIR", type=INPUT)
@option("-o", "--output", type=OUTPUT, unset="report.html in DIR; stdout for other formats", help="File to write.")
@option(
    "--require",
    metavar="FIGURE<=LIMIT,...",
    multiple=True,
    show_default=False,
    help="Requirements on the candidates or cells, as in `gate`; may be repeated. The fastest that keeps all is recommended.",
)
@option("--against", type=INPUT, metavar="DIR", show_default=False, help="Another deployment or sweep to compare with.")
@option("--format", "form", type=click.Choice(["html", "csv", "markdown", "json"]), default="html", help="Page or table.")
def command(folder: Path, output: Path | None, require: tuple[str, ...], against: Path | None, form: "Format") -> None:
    """Make the report of the finished deployment or the sweep in DIR: print the table and write the page.

    \b
    Examples:
      emca-deploy report out -o report.html
      emca-deploy report out --require "drop<=0.2, p99<=8ms"
      emca-deploy report sweep --format csv -o sweep.csv
    """
    from emca_deploy.api.report import page_in, report_text
    from emca_deploy.reporting.sweeps.terminal import print_report

    written = page_in(folder) if output is None and form == "html" else output
    found, text = report_text(folder, require, form, written, against)
    if form == "html":
        print_report(found, table_console())
    echo(text.rstrip("\n") if written is None else f"\nreport: {written}")
