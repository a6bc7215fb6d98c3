"""`emca-deploy report`."""

from pathlib import Path

import click

from emca_deploy.commands._console import echo, table_console

__all__ = ["command"]


@click.command("report")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page to write.  [default: report.html in DIR]")
def command(folder: Path, output: Path | None) -> None:
    """Draw the report of a finished deployment again, from the result.json in DIR: the table here, the page to a file.

    \b
    emca-deploy report out -o report.html
    """
    from emca_deploy.api.report import page_in, report
    from emca_deploy.reporting.terminal import print_deploy

    page = output or page_in(folder)
    print_deploy(report(folder, page), table_console())
    echo(f"\nreport: {page}")
