"""`emca-deploy demo`."""

from pathlib import Path

import click

from emca_deploy.commands._console import json_option

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
    from emca_deploy._machine import default_threads
    from emca_deploy.api.deploy import DeployOptions
    from emca_deploy.commands.deploy import run_deployment
    from emca_deploy.data import bundled
    from emca_deploy.exporting.checkpoint import ExportOptions

    options = DeployOptions(
        ExportOptions(preprocessing=bundled.BUNDLED_PREPROCESSING),
        threads=threads or default_threads(),
        duration_s=duration,
        limit=limit,
    )
    images = bundled.bundled_calibration_images(), bundled.bundled_test_images()
    run_deployment(bundled.bundled_checkpoint(), *images, output, options, as_json)
