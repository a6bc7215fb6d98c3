"""`emca-deploy tune`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.api.names import TUNED, listed
from emca_deploy.commands._console import echo, json_option, print_json, table_console, tell_notes
from emca_deploy.commands._measuring_options import document_option, scenario_option, seed_option
from emca_deploy.commands._options import io_options
from emca_deploy.commands._outcome import INTERRUPTED
from emca_deploy.commands._progress_bars import progress

__all__ = ["command"]


@click.command("tune")
@click.argument("artifact")
@click.option("--backend", metavar="NAME", help=f"{listed(TUNED)}.  [default: the artifact's own]")
@scenario_option
@click.option(
    "--budget",
    "budget_s",
    type=click.FloatRange(1),
    default=120.0,
    show_default=True,
    help="About so many seconds; too few are refused.",
)
@click.option("--threads-max", type=click.IntRange(1), help="The most threads to try.  [default: all cores]")
@click.option(
    "--allow-precision",
    "precisions",
    type=click.Choice(["bf16", "f16"]),
    multiple=True,
    help="Also try this one for the float parts, although it changes the answers; may be repeated.",
)
@click.option("--no-save", is_flag=True, help="Leave the manifest as it is.")
@seed_option
@document_option
@io_options
@json_option
def command(output: Path | None, no_save: bool, as_json: bool, **options: Any) -> int:
    """Find the runtime settings that run ARTIFACT fastest on this machine, and keep them in its manifest.

    ARTIFACT is an .onnx file or an engine. All settings are tried briefly, the better half longer, and so on; each is measured
    in turn with the default ones. What wins meets the default once more: it is kept only where the interval of that ratio does
    not hold 1. `profile` and `validate` then use it on this machine, unless they are told --untuned.

    \b
    emca-deploy tune model.onnx --backend openvino --budget 120
    emca-deploy tune model.int8.onnx --scenario offline -o tuned.json
    """
    from emca_deploy.api.tune import keep_tuned, tune
    from emca_deploy.reporting.files import measured, write_document
    from emca_deploy.reporting.tuning import print_tuning
    from emca_deploy.requests import TuneRequest

    with progress("tuning") as advance:
        report, unwritten = measured(
            lambda: tune(TuneRequest(**options), save=False, tell=lambda line: echo(f"  {line}", err=True), progress=advance),
            [(output, write_document)],
            finish=None if no_save else keep_tuned,
        )
    if as_json:
        print_json(report)
    else:
        print_tuning(report, table_console())
    if unwritten is not None:
        raise unwritten
    tell_notes(report.notes)
    if report.complete:
        return 0
    echo("interrupted: the manifest is as it was; these are the fastest settings so far, not confirmed", err=True)
    return INTERRUPTED
