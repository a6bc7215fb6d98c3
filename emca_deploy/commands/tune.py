"""`emca-deploy tune`."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.api.names import TUNED, listed
from emca_deploy.commands._console import echo, json_option, print_json
from emca_deploy.commands._options import io_options
from emca_deploy.commands._progress_bars import progress
from emca_deploy.errors import OutputError
from emca_deploy.results.codec import to_json

if TYPE_CHECKING:
    from emca_deploy.results.tuning import TuneReport

__all__ = ["command"]

INTERRUPTED = 130


@click.command("tune")
@click.argument("artifact")
@click.option("--backend", metavar="NAME", help=f"{listed(TUNED)}.  [default: the artifact's own]")
@click.option(
    "--scenario",
    type=click.Choice(["single-stream", "offline"]),
    default="single-stream",
    show_default=True,
    help="What shall be fast: one call, or many images a second.",
)
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
@click.option("--seed", type=int, default=0, show_default=True, help="Of the input and the order of the blocks.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also write the JSON document to this file.")
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
    from emca_deploy.reporting.tuning import print_tuning
    from emca_deploy.requests import TuneRequest
    from emca_deploy.targets.tuning import run_tune

    request = TuneRequest(**options)
    report: TuneReport | None = None
    unwritten: OutputError | None = None
    try:
        with _opened(output) as temporary:
            with progress("tuning") as told:
                report = run_tune(request, lambda line: echo(f"  {line}", err=True), told)
            report = report if no_save else _kept(report)
            if temporary is not None:
                temporary.write_text(json.dumps(to_json(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OutputError as error:
        if report is None:
            raise
        unwritten = error  # the disk is full, say, but what was found can still be shown
    if as_json:
        print_json(to_json(report))
    else:
        _print(report, print_tuning)
    if unwritten is not None:
        raise unwritten
    return _ended(report)


def _kept(report: "TuneReport") -> "TuneReport":
    """Write what was found into the artifact's manifest, where it has one; not what an interrupt left unconfirmed."""
    from emca_deploy.artifacts import manifest_path
    from emca_deploy.targets.tuning import keep

    return keep(report) if report.complete and manifest_path(Path(report.artifact)).is_file() else report


def _opened(path: Path | None) -> AbstractContextManager[Path | None]:
    from emca_deploy.artifacts import atomic_write

    return nullcontext() if path is None else atomic_write(path)


def _print(report: "TuneReport", printed: Any) -> None:
    from emca_deploy.commands._console import table_console

    printed(report, table_console())


def _ended(report: "TuneReport") -> int:
    for note in report.notes:
        echo(f"note: {note}", err=True)
    if report.complete:
        return 0
    echo("interrupted: the manifest is as it was; these are the fastest settings so far, not confirmed", err=True)
    return INTERRUPTED
