"""`emca-deploy build`."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.api.names import BUILT
from emca_deploy.commands import _completions as completions
from emca_deploy.commands._console import echo, json_option, remark, show, tell
from emca_deploy.commands._measuring_options import power_mode_option
from emca_deploy.commands._options import io_options, threads_option
from emca_deploy.commands._progress_bars import progress
from emca_deploy.commands._types import INPUT, OUTPUT, option

if TYPE_CHECKING:
    from emca_deploy.api.build import BuildReport

__all__ = ["command"]


@click.command("build")
@click.argument("model", type=INPUT)
@option("--backend", required=True, metavar="NAME", shell_complete=completions.backends, help=f"Backend of the engine: {BUILT}.")
@option("-o", "--output", required=True, type=OUTPUT, help="Engine file to write; its manifest is written next to it.")
@threads_option
@option("--batch", type=click.IntRange(min=1), help="Fix a dynamic batch to this number of images.")
@option("--batches", metavar="MIN,OPT,MAX", unset="1,1,64", help="TensorRT: smallest, most likely and largest dynamic batch.")
@option("--workspace-mib", type=click.IntRange(min=1), help="TensorRT: scratch memory that one layer may use, in MiB.")
@option(
    "--optimization-level",
    type=click.IntRange(0, 5),
    unset="3",
    help="TensorRT: search effort, from 0 (fast) to 5 (long).",
)
@option("--timing-cache", metavar="FOLDER", type=OUTPUT, help="tensorrt: folder that keeps kernel timings between builds.")
@option("--target-capability", "targets", multiple=True, metavar="8.6", help="tensorrt-rtx: GPU to compile for; may be repeated.")
@option("--version-compatible", is_flag=True, help="tensorrt: build an engine that later versions can run.")
@option("--hardware-compatible", is_flag=True, help="tensorrt: build for all GPUs since Ampere; not available on Jetson.")
@option("--dla-core", type=click.IntRange(min=0), help="tensorrt: index of the DLA core to use, with the GPU as fallback.")
@option("--calibration-cache", metavar="FILE", type=INPUT, help="tensorrt before 11: scales that make an fp32 MODEL INT8.")
@option("--trtexec", metavar="auto|PATH", help="tensorrt: build with trtexec instead of TensorRT's Python package.")
@option(
    "--target",
    metavar="NAME",
    shell_complete=completions.targets,
    unset="this machine",
    help="Where to build: jetson, ssh://[user@]host, or a named machine.",
)
@power_mode_option
@io_options
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Build a backend's engine from MODEL, an .onnx file.

    An engine loads faster than its model, but other runtime versions and processors without the same instruction sets refuse it.
    TensorRT builds on the GPU that the engine is for; TensorRT-RTX builds anywhere, for the GPUs of --target-capability.
    `emca-deploy plan` shows the options that a board needs.

    \b
    Examples:
      emca-deploy build model.int8.onnx --backend openvino -o model.ov --batch 1
      emca-deploy build model.int8.onnx --backend tensorrt -o model.engine
      emca-deploy build model.onnx --backend tensorrt -o model.engine \\
          --batch 1 --dla-core 0 --calibration-cache model.cache
    """
    from emca_deploy.api.build import build
    from emca_deploy.requests import BuildRequest, TrtChoices

    choices = TrtChoices(**{field.name: options.pop(field.name) for field in fields(TrtChoices)})
    request = BuildRequest(choices=choices, **options)
    with progress(f"building {Path(request.output).name}") as advance:
        report = build(request, advance)
    tell(notes=report.notes, warnings=report.warnings)
    show(report, as_json, lambda: _print(report))


def _print(report: "BuildReport") -> None:
    manifest = report.manifest
    machine, built = manifest.details["machine"], manifest.details.get("tensorrt")
    mixed = built is not None and manifest.precision == "int8" and built["float_precision"] == "fp16"
    precision = "int8, float part fp16" if mixed else manifest.precision
    echo(f"{report.engine}: {manifest.backend} engine, {precision}, {report.size_mib:.1f} MiB")
    if built is not None:
        remark(f"{built['int8_convolutions']} of {built['convolutions']} convolutions in INT8, {built['layers']} layers")
        tell(warnings=(" ".join(warning.split()) for warning in built["warnings"]))
    if dla := manifest.details.get("dla"):
        share = dla["macs_on_dla_percent"]
        work = "" if share is None else f", {share:.1f}% of the multiply-adds"
        remark(f"DLA: {len(dla['dla_parts'])} parts, {dla['nodes'].get('dla', 0)} nodes{work}")
        for node in dla["gpu_nodes"]:
            remark(f"on the GPU: {node}{': ' + reason if (reason := dla['refused'].get(node)) else ''}")
    remark(f"for {machine['model']} ({', '.join(machine['instruction_sets']) or machine['architecture']})")
