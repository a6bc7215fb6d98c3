"""`emca-deploy build`: an engine of one backend from an ONNX model."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from emca_deploy.api.names import BUILT, listed
from emca_deploy.commands._console import json_option, print_json, tell_notes, tell_warnings
from emca_deploy.commands._measuring_options import power_mode_option
from emca_deploy.commands._options import io_options
from emca_deploy.commands._progress_bars import progress
from emca_deploy.commands._summaries import print_engine

__all__ = ["command"]


@click.command("build")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--backend", required=True, metavar="NAME", help=f"{listed(BUILT)}.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The engine to write; its manifest goes beside it."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compile for (TensorRT: with).  [one a physical core]")
@click.option("--batch", type=click.IntRange(min=1), help="Specialise a dynamic batch to this size; left dynamic unless given.")
@click.option("--batches", metavar="MIN,OPT,MAX", help="TensorRT: a dynamic batch's smallest, likeliest, largest.  [1,1,64]")
@click.option("--workspace-mib", type=click.IntRange(min=1), help="TensorRT: most memory a layer may use besides its tensors.")
@click.option("--optimization-level", type=click.IntRange(0, 5), help="TensorRT: 0 builds fastest, 5 searches longest.  [3]")
@click.option("--timing-cache", metavar="FOLDER", type=click.Path(path_type=Path), help="tensorrt: keep and reuse measurements.")
@click.option(
    "--target-capability", "targets", multiple=True, metavar="8.6", help="tensorrt-rtx: a GPU to compile for; repeat it."
)
@click.option("--version-compatible", is_flag=True, help="tensorrt: an engine that later versions run, too.")
@click.option("--hardware-compatible", is_flag=True, help="tensorrt: an engine for all GPUs from Ampere on; not for Jetson.")
@click.option(
    "--dla-core", type=click.IntRange(min=0), help="tensorrt: run on this DLA core, and on the GPU what that cannot do."
)
@click.option(
    "--calibration-cache", metavar="FILE", type=click.Path(path_type=Path), help="tensorrt up to 10: INT8 of an fp32 model."
)
@click.option(
    "--trtexec", metavar="auto|PATH", help="tensorrt: build with TensorRT's own tool, where its Python package is missing."
)
@click.option("--target", metavar="NAME", help="jetson: on this board; or on another machine: ssh://host.  [default: here]")
@power_mode_option
@io_options
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Build a backend's engine from MODEL.onnx.

    An engine loads quicker than the model, and only where it was built: another runtime version or a processor without the
    instruction sets of this one is refused. TensorRT builds on the GPU that the engine is for, TensorRT-RTX anywhere for the GPUs
    that are named. `emca-deploy plan` says beforehand what TensorRT on a board wants.

    \b
    emca-deploy build model.int8.onnx --backend openvino -o model.int8.ov --batch 1
    emca-deploy build model.int8.onnx --backend tensorrt-rtx -o model.engine --batches 1,8,32 --target-capability 8.9
    emca-deploy build model.onnx --backend tensorrt -o model.engine --dla-core 0 --calibration-cache model.cache --batch 1
    emca-deploy build model.int8.onnx --backend tensorrt --trtexec auto -o model.engine
    """
    from emca_deploy.api.build import build
    from emca_deploy.requests import BuildRequest, TrtChoices

    choices = TrtChoices(**{field.name: options.pop(field.name) for field in fields(TrtChoices)})
    request = BuildRequest(choices=choices, **options)
    with progress(f"building {Path(request.output).name}") as advance:
        report = build(request, advance)
    tell_notes(report.notes)
    tell_warnings(report.warnings)
    if as_json:
        print_json(report)
    else:
        print_engine(report)
