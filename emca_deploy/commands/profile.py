"""`emca-deploy profile`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.commands import _measuring_options as measuring
from emca_deploy.commands._console import json_option, print_json, table_console, tell_notes
from emca_deploy.commands._options import io_options
from emca_deploy.commands._outcome import exit_code, tell_outcome
from emca_deploy.commands._progress_bars import progress
from emca_deploy.errors import InputError

__all__ = ["command"]


@click.command("profile")
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True)
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Backend to run on; repeat it to compare several.")
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="Where: cpu, gpu, gpu:1 for the second one; on a board jetson; elsewhere ssh://[user@]host[:port].",
)
@measuring.scenario_option
@click.option("--batch", type=click.IntRange(1), help="Images a call.  [default: 1; offline: 8]")
@click.option("--threads", type=click.IntRange(1), help="Threads per candidate.  [default: one a physical core]")
@click.option("--duration", "duration_s", type=click.FloatRange(0.1), default=5.0, show_default=True, help="Least seconds each.")
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
    help="Processes per candidate, whose blocks take turns.  [default: 8 to compare on a processor, else 1]",
)
@click.option("--warmup", "warmup_s", type=click.FloatRange(0), default=2.0, show_default=True, help="Most seconds each.")
@measuring.precision_option
@measuring.seed_option
@measuring.document_option
@click.option("--raw", type=click.Path(path_type=Path), metavar="FILE.npz", help="Write every sample to this file.")
@click.option("--no-samples", is_flag=True, help="Leave the samples out of the JSON document; --raw has them.")
@click.option("--telemetry/--no-telemetry", default=True, show_default=True, help="Sample clocks, heat, power and memory.")
@measuring.power_mode_option
@measuring.untuned_option
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
    from emca_deploy.api.profile import name_samples, profile_notes, profile_samples, write_samples
    from emca_deploy.reporting.files import measured, write_document
    from emca_deploy.reporting.terminal import print_profile
    from emca_deploy.requests import ProfileRequest

    if no_samples and raw is None:
        raise InputError("--no-samples without --raw would lose the samples", "add --raw samples.npz")
    request = ProfileRequest(**options)
    tell_notes(profile_notes(request))
    with progress("measuring") as advance:
        (report, _), unwritten = measured(
            lambda: profile_samples(request, advance),
            [(output, lambda found, path: write_document(found.report, path)), (raw, write_samples)],
            finish=None if raw is None else lambda found: name_samples(found, raw, output, only_there=no_samples),
        )
    if as_json:
        print_json(report)
    else:
        print_profile(report, table_console())
    tell_outcome(report, warnings=not as_json)
    if unwritten is not None:
        raise unwritten
    return exit_code(report)
