"""`emca-deploy profile`."""

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.commands._console import json_option, print_json, progress

if TYPE_CHECKING:
    from emca_deploy.harness.latency_results import ProfileReport

__all__ = ["command"]

OFFLINE_BATCH = 8


@click.command("profile")
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True)
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Run on this one; repeat it to compare several.")
@click.option("--target", default="cpu", show_default=True, help="Where: cpu, gpu, or gpu:1 for the second one.")
@click.option(
    "--scenario",
    type=click.Choice(["single-stream", "offline"]),
    default="single-stream",
    show_default=True,
    help="One image at a time, or large batches.",
)
@click.option("--batch", type=click.IntRange(1), help="Images a call.  [default: 1; offline: 8]")
@click.option("--threads", type=click.IntRange(1), help="Of each candidate.  [default: one a physical core]")
@click.option("--duration", "duration_s", type=click.FloatRange(0.1), default=5.0, show_default=True, help="Seconds each.")
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
@json_option
def command(artifacts: tuple[str, ...], output: Path | None, as_json: bool, **options: Any) -> None:
    """Measure latency and throughput of each ARTIFACT; several are interleaved and compared to the first.

    An ARTIFACT is an engine with its manifest, or an .onnx file; BACKEND=FILE runs it on that backend. Every candidate has a
    process of its own, and short blocks of all of them alternate in random order, so that heat, clocks and neighbours hit all
    alike. Ratios have bootstrap intervals; more than 1 is faster than the first.

    With --target gpu an engine of TensorRT runs as it is, an .onnx file on TensorRT or TensorRT-RTX, which build it first, and on
    ONNX Runtime's CUDA provider, and a checkpoint on PyTorch: eager, compiled, fp16, channels last.

    \b
    emca-deploy profile model.onnx model.openvino.onnx
    emca-deploy profile onnxruntime=model.onnx openvino=model.onnx --threads 1 --json
    """
    from emca_deploy.artifacts import atomic_write
    from emca_deploy.harness.latency import Protocol, measure
    from emca_deploy.targets.gpu import gpu_candidates, gpu_index
    from emca_deploy.targets.local import LocalOptions, candidates

    batch = options["batch"] or (OFFLINE_BATCH if options["scenario"] == "offline" else 1)
    local = LocalOptions(options["threads"], options["precision"], batch, options["target"])
    gpu = gpu_index(options["target"])
    specs = (
        candidates(artifacts, options["backends"], local)
        if gpu is None
        else gpu_candidates(artifacts, options["backends"], local)
    )
    chosen = {name: options[name] for name in ("scenario", "warmup_s", "duration_s", "seed")}
    # The file is opened first: a folder that cannot be written to is better known before the minutes of measuring.
    with atomic_write(output) if output else nullcontext() as temporary:
        with progress("measuring") as report, _recorded(gpu) as record:
            result = measure(specs, Protocol(batch=batch, **chosen), report)
        result = replace(result, environment={**result.environment, **record})
        document = result.to_dict()
        if temporary is not None:
            temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if as_json:
        print_json(document)
    else:
        _print(result)


def _recorded(gpu: int | None) -> AbstractContextManager[dict[str, Any]]:
    """Return what yields the record of a GPU, or an empty one."""
    from emca_deploy.targets.gpu import gpu_record

    return nullcontext({}) if gpu is None else gpu_record(gpu)


def _print(report: "ProfileReport") -> None:
    """Print the table on stdout and the warnings on stderr."""
    from emca_deploy.commands._console import table_console
    from emca_deploy.report.terminal import print_profile

    print_profile(report, table_console())
    _print_warnings(report)


def _print_warnings(report: "ProfileReport") -> None:
    """Say each warning once, with the artifacts it is about."""
    about: dict[str, list[str]] = {}
    for result in report.results:
        for warning in result.warnings:
            about.setdefault(warning, []).append(result.artifact)
    for warning, artifacts in about.items():
        names = "" if len(artifacts) == len(report.results) else f"{', '.join(artifacts)}: "
        click.echo(f"warning: {names}{warning}", err=True)
