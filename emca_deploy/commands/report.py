"""`emca-deploy report`."""

from pathlib import Path

import click

from emca_deploy.commands._console import echo, table_console
from emca_deploy.commands._types import INPUT, OUTPUT, option

__all__ = ["command"]


@click.command("report")
@click.argument("folder", metavar="DIR", type=INPUT)
@option("-o", "--output", type=OUTPUT, unset="report.html in DIR", help="HTML page to write.")
def command(folder: Path, output: Path | None) -> None:
    """Make the report of a finished deployment again, from the result.json in DIR: print the table and write the page.

    \b
    Example:
      emca-deploy report out -o report.html
    """
    from emca_deploy.api.report import page_in, report
    from emca_deploy.reporting.terminal import print_deploy

    page = output or page_in(folder)
    print_deploy(report(folder, page), table_console())
    echo(f"\nreport: {page}")
