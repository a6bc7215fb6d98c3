"""`emca-deploy tune`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.api.names import TUNED
from emca_deploy.commands import _completions as completions
from emca_deploy.commands._console import echo, json_option, remark, show, table_console, tell
from emca_deploy.commands._durations import DurationType
from emca_deploy.commands._measuring_options import document_option, scenario_option, seed_option
from emca_deploy.commands._options import io_options
from emca_deploy.commands._outcome import INTERRUPTED
from emca_deploy.commands._progress_bars import progress
from emca_deploy.commands._types import option

__all__ = ["command"]


@click.command("tune")
@click.argument("artifact", shell_complete=completions.files)
@option(
    "--backend",
    metavar="NAME",
    shell_complete=completions.backends,
    unset="the artifact's own",
    help=f"Backend to tune: {TUNED}.",
)
@scenario_option()
@option("--budget", "budget_s", type=DurationType(1), default=120.0, help="Approximate duration of the search in seconds.")
@option("--threads-max", type=click.IntRange(1), unset="all logical cores", help="Largest number of threads to try.")
@option(
    "--allow-precision",
    "precisions",
    type=click.Choice(["bf16", "f16"]),
    multiple=True,
    help="Also try this precision for the float parts, which changes the logits; may be repeated.",
)
@option("--no-save", is_flag=True, help="Do not write the settings to the manifest.")
@seed_option
@document_option
@io_options
@json_option
def command(output: Path | None, no_save: bool, as_json: bool, **options: Any) -> int:
    """Find the fastest runtime settings of ARTIFACT on this machine, and keep them in its manifest.

    ARTIFACT is an .onnx file or an engine. All settings are tried briefly, then the better half for longer, and so on, each in
    turn with the defaults. The winner is measured against the defaults once more, and kept only if the interval of their ratio
    excludes 1. `profile` and `validate` then use it on this machine, unless --untuned is given.

    \b
    Examples:
      emca-deploy tune model.onnx --backend openvino --budget 120
      emca-deploy tune model.int8.onnx --scenario offline -o tuned.json
    """
    from emca_deploy.api.tune import keep_tuned, tune
    from emca_deploy.reporting.files import measured, write_document
    from emca_deploy.reporting.tuning import print_tuning
    from emca_deploy.requests import TuneRequest

    with progress("tuning") as advance:
        report, unwritten = measured(
            lambda: tune(TuneRequest(**options), save=False, tell=lambda line: remark(f"  {line}"), progress=advance),
            [(output, write_document)],
            finish=None if no_save else keep_tuned,
        )
    show(report, as_json, lambda: print_tuning(report, table_console()), unwritten)
    tell(notes=report.notes)
    if report.complete:
        return 0
    echo("interrupted: the manifest is unchanged; these are the fastest settings so far, not confirmed", err=True)
    return INTERRUPTED
