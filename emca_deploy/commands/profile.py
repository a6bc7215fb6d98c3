"""`emca-deploy profile`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.commands import _completions as completions
from emca_deploy.commands import _measuring_options as measuring
from emca_deploy.commands import _mlflow_option as tracking
from emca_deploy.commands._console import json_option, show, table_console, tell
from emca_deploy.commands._durations import DurationType
from emca_deploy.commands._load_options import load_options
from emca_deploy.commands._options import backends_option, io_options, threads_option
from emca_deploy.commands._outcome import exit_code, tell_outcome
from emca_deploy.commands._progress_bars import progress
from emca_deploy.commands._types import OUTPUT, option
from emca_deploy.errors import InputError

__all__ = ["command"]


@click.command("profile")
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, shell_complete=completions.files)
@backends_option
@measuring.target_option
@measuring.scenario_option("paced")
@load_options
@option("--batch", type=click.IntRange(1), unset="1; offline: 8", help="Number of images per call.")
@threads_option
@option("--duration", "duration_s", type=DurationType(0.1), default=5.0, help="Least seconds to measure each candidate.")
@option(
    "--max-duration",
    "max_duration_s",
    type=DurationType(0.1),
    metavar="S",
    unset="6 times --duration",
    help="Most seconds to measure each candidate. Measuring ends earlier once every median is known within 1 %.",
)
@option(
    "--processes", type=click.IntRange(1), metavar="N", unset="8 to compare on a CPU, else 1", help="Processes per candidate."
)
@option("--warmup", "warmup_s", type=DurationType(0), default=2.0, help="Most seconds to warm up each candidate.")
@measuring.precision_option
@measuring.seed_option
@measuring.document_option
@option("--raw", type=OUTPUT, metavar="FILE.npz", help="Write the latency of every call to this file.")
@option("--no-samples", is_flag=True, help="Leave the samples out of the JSON document; requires --raw.")
@option("--telemetry/--no-telemetry", default=True, help="Sample clocks, temperatures, power and memory.")
@measuring.power_mode_option
@measuring.untuned_option
@io_options
@tracking.mlflow_option
@json_option
def command(output: Path | None, raw: Path | None, no_samples: bool, mlflow: str | None, as_json: bool, **options: Any) -> int:
    """Measure latency and throughput of each ARTIFACT, and compare each with the first.

    An ARTIFACT is an engine or an .onnx file. BACKEND=FILE runs it on that backend; FIRST+SECOND measures two files as one
    candidate. With --target gpu, a checkpoint runs on PyTorch, and an .onnx file on TensorRT (which builds it first) or ONNX
    Runtime with CUDA. With --target jetson, an .onnx file runs on the processor unless --backend tensorrt is given.

    Every candidate runs in processes of its own. Short blocks of all candidates alternate in random order, which exposes all of
    them to the same heat, clocks and load. A ratio above 1 is faster than the first; ratios have bootstrap intervals.
    Ctrl-C keeps what was measured so far.

    With --scenario paced, frames come at each --rate and wait until the runner is free; none is skipped. Latency is the time from
    when a frame comes to its answer. --duration is that of each rate, and calls made back to back are measured for comparison.

    \b
    Examples:
      emca-deploy profile model.onnx model.int8.onnx
      emca-deploy profile onnxruntime=model.onnx openvino=model.onnx --threads 1
      emca-deploy profile model.onnx -o result.json --raw samples.npz
      emca-deploy profile model.onnx --scenario paced --rate 5,10 --deadline 20ms
      emca-deploy profile detector.onnx --co-run model.onnx --threads 1
    """
    from emca_deploy.api.profile import name_samples, profile_notes, profile_samples, write_samples
    from emca_deploy.reporting.files import measured, write_document
    from emca_deploy.reporting.terminal import print_profile
    from emca_deploy.requests import ProfileRequest

    if no_samples and raw is None:
        raise InputError("--no-samples without --raw would lose the samples", "add --raw samples.npz")
    tracking.check(mlflow, output)
    request = ProfileRequest(**options)
    tell(notes=profile_notes(request))
    with progress("measuring") as advance:
        (report, _), unwritten = measured(
            lambda: profile_samples(request, advance),
            [(output, lambda found, path: write_document(found.report, path)), (raw, write_samples)],
            finish=None if raw is None else lambda found: name_samples(found, raw, output, only_there=no_samples),
        )
    tell_outcome(report)
    show(report, as_json, lambda: print_profile(report, table_console()), unwritten)
    tracking.log(mlflow, [output] if output is not None else [])
    return exit_code(report)
