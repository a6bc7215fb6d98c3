"""`emca-deploy inspect`."""

from pathlib import Path

import click

from emca_deploy.commands._console import json_option, show, table_console, tell
from emca_deploy.commands._types import INPUT

__all__ = ["command"]


@click.command("inspect")
@click.argument("bundle", metavar="BUNDLE", type=INPUT)
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Show what BUNDLE, an .emca file or its unpacked folder, holds. Nothing of it is loaded, and a damaged one is refused.

    \b
    Example:
      emca-deploy inspect model.emca
    """
    from emca_deploy.api.bundle import inspect_bundle
    from emca_deploy.reporting.bundle import print_bundle

    report = inspect_bundle(bundle)
    tell(notes=report.notes)
    show(report, as_json, lambda: print_bundle(report, table_console()))
