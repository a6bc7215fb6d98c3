"""`emca-deploy demo`."""

from pathlib import Path

import click

from emca_deploy.commands._console import json_option
from emca_deploy.commands._progress_bars import stages
from emca_deploy.commands.deploy import show_deployment

__all__ = ["command"]


@click.command("demo")
@click.option(
    "-o", "--output", default="demo", show_default=True, type=click.Path(path_type=Path), help="A folder for the result."
)
@click.option("--threads", type=click.IntRange(1), help="For every runtime.  [default: all cores]")
@click.option("--duration", type=click.FloatRange(0.5), default=5.0, show_default=True, help="Seconds to measure each candidate.")
@click.option("--limit", type=click.IntRange(1), help="Validate on this many of the 2,000 images only.")
@json_option
def command(output: Path, threads: int | None, duration: float, limit: int | None, as_json: bool) -> None:
    """`deploy` on the bundled EMCA-ECA-ResNet-18 (Fashion-MNIST) and its labelled images; about a minute.

    \b
    emca-deploy demo -o demo
    """
    from emca_deploy.api.demo import demo

    with stages() as stage:
        report = demo(output, threads=threads, duration_s=duration, limit=limit, stage=stage)
    show_deployment(report, output, as_json=as_json)
