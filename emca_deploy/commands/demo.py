"""`emca-deploy demo`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.commands._console import json_option
from emca_deploy.commands._options import duration_option, limit_option, threads_option
from emca_deploy.commands._progress_bars import stages
from emca_deploy.commands._types import INPUT, OUTPUT, option
from emca_deploy.commands.deploy import show_deployment

__all__ = ["command"]


@click.command("demo")
@option("-o", "--output", default="demo", type=OUTPUT, help="Folder for everything that is made.")
@option("--task", type=click.Choice(("classification", "detection")), default="classification", help="Task of the sample.")
@option("--data", type=INPUT, metavar="FOLDER", unset="examples/data of this clone", help="Folder with the sample for detection.")
@threads_option
@duration_option
@limit_option
@json_option
def command(output: Path, as_json: bool, **options: Any) -> None:
    """Run `deploy` on a sample: the bundled EMCA-ECA-ResNet-18 and 2,000 labelled images of Fashion-MNIST, in about a minute.

    The sample for detection is a Mask R-CNN with that backbone and 200 annotated scenes of the same garments. It is in the
    repository, not in the wheel.

    \b
    Examples:
      emca-deploy demo -o demo
      emca-deploy demo --task detection -o demo
    """
    from emca_deploy.api.demo import demo

    with stages() as stage:
        report = demo(output, **options, stage=stage)
    show_deployment(report, output, as_json=as_json)
