"""`emca-deploy export`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.commands._checkpoint_options import checkpoint_options, tell_source
from emca_deploy.commands._console import json_option, print_json, tell_notes
from emca_deploy.commands._preprocessing_options import preprocessing_options
from emca_deploy.commands._summaries import print_export
from emca_deploy.commands._types import batch_size
from emca_deploy.errors import InputError
from emca_deploy.results.codec import to_json

__all__ = ["command"]

MIN_OPSET = 18


@click.command("export")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The ONNX file.")
@click.option("--arch", help="The architecture; inferred from the checkpoint when not given.")
@click.option("--random-init", is_flag=True, help="Fresh weights instead of a checkpoint (to try latency).")
@click.option("--num-classes", type=click.IntRange(1), help="Width of the logits; read from the checkpoint when not given.")
@checkpoint_options
@preprocessing_options
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="Precision of weights and activations.",
)
@click.option(
    "--form",
    type=click.Choice(["plain", "dla"]),
    default="plain",
    show_default=True,
    help="dla: attention and head in forms that a Jetson's DLA runs, the same numbers; CHECKPOINT may then be an .onnx file.",
)
@click.option(
    "--batch",
    callback=batch_size,
    default="dynamic",
    show_default=True,
    help="'dynamic', or a fixed number of images.",
)
@click.option("--opset", type=click.IntRange(MIN_OPSET), default=20, show_default=True, help="Opset of the ONNX file.")
@json_option
def command(random_init: bool, as_json: bool, **options: Any) -> None:
    """Export a checkpoint to ONNX, checked against PyTorch on random and real images.

    \b
    emca-deploy export model.pth.tar -o model.onnx
    emca-deploy export model.pth.tar --precision fp16 -o model.fp16.onnx
    emca-deploy export model.safetensors.index.json -o model.onnx
    emca-deploy export last.ckpt --weights plain -o model.onnx
    emca-deploy export --random-init --arch emca_eca_resnet50 -o r50.onnx
    emca-deploy export model.onnx --form dla -o model.dla.onnx
    """
    from emca_deploy.api.export import ExportRequest, export

    if random_init == (options["checkpoint"] is not None):
        raise InputError("give either a CHECKPOINT or --random-init", "one of the two, not both and not neither")
    request = ExportRequest(**options)
    report = export(request, None if as_json else lambda source: tell_source(to_json(source)))
    tell_notes(report.notes)
    if as_json:
        print_json(report)
    else:
        print_export(report)
