"""`emca-deploy demo`."""

from pathlib import Path

import click

from emca_deploy.commands._console import json_option
from emca_deploy.commands._options import duration_option, limit_option, threads_option
from emca_deploy.commands._progress_bars import stages
from emca_deploy.commands._types import OUTPUT, option
from emca_deploy.commands.deploy import show_deployment

__all__ = ["command"]


@click.command("demo")
@option("-o", "--output", default="demo", type=OUTPUT, help="Folder for everything that is made.")
@threads_option
@duration_option
@limit_option
@json_option
def command(output: Path, threads: int | None, duration_s: float, limit: int | None, as_json: bool) -> None:
    """Run `deploy` on the bundled EMCA-ECA-ResNet-18 and 2,000 labelled images of Fashion-MNIST, in about a minute.

    \b
    Example:
      emca-deploy demo -o demo
    """
    from emca_deploy.api.demo import demo

    with stages() as stage:
        report = demo(output, threads=threads, duration_s=duration_s, limit=limit, stage=stage)
    show_deployment(report, output, as_json=as_json)
