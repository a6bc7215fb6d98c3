"""`emca-deploy profile`."""

import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.commands._board import power_mode_option
from emca_deploy.commands._console import echo, json_option, print_json
from emca_deploy.commands._options import io_options
from emca_deploy.commands._progress_bars import progress
from emca_deploy.errors import InputError, OutputError
from emca_deploy.results.codec import to_json

if TYPE_CHECKING:
    from emca_deploy.harness.measure.raw_samples import RawSamples
    from emca_deploy.results.latency import ProfileReport

__all__ = ["command"]

INTERRUPTED = 130


@click.command("profile")
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True)
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Run on this one; repeat it to compare several.")
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="Where: cpu, gpu, gpu:1 for the second one; on a board jetson; elsewhere ssh://[user@]host[:port].",
)
@click.option(
    "--scenario",
    type=click.Choice(["single-stream", "offline"]),
    default="single-stream",
    show_default=True,
    help="One call after the other, or as many at once as the runtime wants.",
)
@click.option("--batch", type=click.IntRange(1), help="Images a call.  [default: 1; offline: 8]")
@click.option("--threads", type=click.IntRange(1), help="Of each candidate.  [default: one a physical core]")
@click.option(
    "--duration", "duration_s", type=click.FloatRange(0.1), default=5.0, show_default=True, help="Seconds each, at least."
)
@click.option(
    "--max-duration",
    "max_duration_s",
    type=click.FloatRange(0.1),
    metavar="S",
    help="Seconds each, at most; fewer where the intervals are within 1 % sooner.  [default: 6 times --duration]",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    metavar="N",
    help="Of each candidate, whose blocks take turns.  [default: 8 to compare on a processor, else 1]",
)
@click.option("--warmup", "warmup_s", type=click.FloatRange(0), default=2.0, show_default=True, help="At most, seconds each.")
@click.option(
    "--precision",
    type=click.Choice(["f32", "bf16"]),
    default="f32",
    show_default=True,
    help="Of the float parts, where the backend has a choice.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the input and the order of the blocks.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also write the JSON document to this file.")
@click.option("--raw", type=click.Path(path_type=Path), metavar="FILE.npz", help="Write every sample to this file.")
@click.option("--no-samples", is_flag=True, help="Leave the samples out of the JSON document; --raw has them.")
@click.option("--telemetry/--no-telemetry", default=True, show_default=True, help="Sample clocks, heat, power and memory.")
@power_mode_option
@click.option("--untuned", is_flag=True, help="Take no notice of the settings that `tune` kept in a manifest.")
@io_options
@json_option
def command(output: Path | None, raw: Path | None, no_samples: bool, as_json: bool, **options: Any) -> int:
    """Measure latency and throughput of each ARTIFACT; several are interleaved and compared to the first.

    An ARTIFACT is an engine with its manifest, or an .onnx file; BACKEND=FILE runs it on that backend; FIRST+SECOND are two
    builds of one candidate. Every candidate has a process of its own, and short blocks of all of them alternate in random order,
    so that heat, clocks and neighbours hit all alike; compared on a processor, each has several, since one may be faster than the
    next by the luck of its memory. Ratios have bootstrap intervals; more than 1 is faster than the first.

    Measuring ends when every median is known within 1 %, or at --max-duration. Ctrl-C keeps what was measured until then.

    With --target gpu an engine of TensorRT runs as it is, an .onnx file on TensorRT or TensorRT-RTX, which build it first, and on
    ONNX Runtime's CUDA provider, and a checkpoint on PyTorch: eager, compiled, fp16, channels last.

    With --target jetson, on the board itself, an engine of TensorRT runs on its GPU and an .onnx file on its processor unless
    --backend tensorrt is given; its power, loads and clocks are in the result.

    \b
    emca-deploy profile model.onnx model.openvino.onnx
    emca-deploy profile onnxruntime=model.onnx openvino=model.onnx --threads 1 --json
    emca-deploy profile model.onnx -o result.json --raw samples.npz
    """
    from emca_deploy.requests import ProfileRequest
    from emca_deploy.targets.named_machines import open_target

    _check_samples(raw, no_samples)
    target, options["power_mode"] = open_target(options["target"], options["power_mode"])
    request = ProfileRequest(**{**options, "target": target.name})
    target.check(request)
    for note in target.notes(request):
        echo(f"note: {note}", err=True)
    report: ProfileReport | None = None
    unwritten: OutputError | None = None
    try:
        # The files are opened first: a folder that cannot be written to is better known before the minutes of measuring.
        with _opened(output) as written:
            with _opened(raw) as to_raw:
                with progress("measuring") as told:
                    report, samples = target.run(request, told)
                report = _as_asked(report, output, raw, no_samples=no_samples)
                _save(to_raw, samples)
            if written is not None:
                written.write_text(json.dumps(to_json(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OutputError as error:
        if report is None:
            raise
        unwritten = error  # the disk is full, say, but what was measured can still be shown
    if as_json:
        print_json(to_json(report))
    else:
        _print(report)
    _tell(report, warnings=not as_json)
    if unwritten is not None:
        raise unwritten
    return _exit_code(report)


def _check_samples(raw: Path | None, no_samples: bool) -> None:
    if no_samples and raw is None:
        raise InputError("--no-samples without --raw would lose the samples", "add --raw samples.npz")


def _opened(path: Path | None) -> AbstractContextManager[Path | None]:
    from emca_deploy.artifacts import atomic_write

    return nullcontext() if path is None else atomic_write(path)


def _as_asked(report: "ProfileReport", output: Path | None, raw: Path | None, *, no_samples: bool) -> "ProfileReport":
    """Name the file of raw samples as the JSON document's own folder sees it, and leave the samples out where asked."""
    if raw is None:
        return report
    place = str(raw) if output is None else os.path.relpath(raw, output.parent)
    results = report.results
    if no_samples:
        results = tuple(replace(result, samples_ms=()) for result in results)
    return replace(report, raw_samples=place, results=results)


def _save(place: Path | None, samples: "RawSamples") -> None:
    from emca_deploy.harness.measure.raw_samples import save_raw

    if place is not None:
        save_raw(place, samples)


def _exit_code(report: "ProfileReport") -> int:
    if report.failures:
        return report.failures[0].exit_code
    return 0 if report.complete else INTERRUPTED


def _print(report: "ProfileReport") -> None:
    """Print the table on stdout."""
    from emca_deploy.commands._console import table_console
    from emca_deploy.reporting.terminal import print_profile

    print_profile(report, table_console())


def _tell(report: "ProfileReport", *, warnings: bool) -> None:
    """Say on stderr what failed and whether it was interrupted, and each warning once, with the artifacts it is about."""
    for failure in report.failures:
        echo(f"error: {' '.join(failure.error.split())}\n  try: {' '.join(failure.remedy.split())}", err=True)
    if not report.complete and not report.failures:
        echo("interrupted: what was measured until then is kept, and marked incomplete", err=True)
    for note in report.environment.get("ssh", {}).get("notes", ()):
        echo(f"note: {note}", err=True)
    for note in dict.fromkeys(note for result in report.results for note in result.telemetry.notes):
        echo(f"note: {note}", err=True)
    if not warnings:
        return
    about: dict[str, list[str]] = {}
    for result in report.results:
        for warning in result.warnings:
            shared = sum(other.artifact == result.artifact for other in report.results) > 1
            about.setdefault(warning, []).append(f"{result.backend}={result.artifact}" if shared else result.artifact)
    for warning, artifacts in about.items():
        names = "" if len(artifacts) == len(report.results) else f"{', '.join(artifacts)}: "
        echo(f"warning: {names}{warning}", err=True)
