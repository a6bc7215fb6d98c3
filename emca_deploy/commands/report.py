"""`emca-deploy report`."""

from pathlib import Path

import click

from emca_deploy.commands._console import echo

__all__ = ["command"]


@click.command("report")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page to write.  [default: report.html in DIR]")
def command(folder: Path, output: Path | None) -> None:
    """Draw the report of a finished deployment again, from the result.json in DIR: the table here, the page to a file.

    \b
    emca-deploy report out -o report.html
    """
    from emca_deploy.artifacts import write_text
    from emca_deploy.commands._console import table_console
    from emca_deploy.reporting.html import render_html
    from emca_deploy.reporting.reading import read_result
    from emca_deploy.reporting.terminal import print_deploy

    report = read_result(folder)
    page = output or (folder if folder.is_dir() else folder.parent) / "report.html"
    write_text(page, render_html(report))
    print_deploy(report, table_console())
    echo(f"\nreport: {page}")
