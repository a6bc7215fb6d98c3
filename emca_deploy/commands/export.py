"""`emca-deploy export`."""

from typing import Any

import click

from emca_deploy.commands._checkpoint_options import checkpoint_options, print_source
from emca_deploy.commands._console import json_option, show, tell
from emca_deploy.commands._detector_options import detector_options
from emca_deploy.commands._exported import print_exported
from emca_deploy.commands._graph_options import input_form_option, output_options
from emca_deploy.commands._options import arch_option
from emca_deploy.commands._preprocessing_options import preprocessing_options
from emca_deploy.commands._types import INPUT, OUTPUT, batch_size, option
from emca_deploy.errors import InputError
from emca_deploy.results.codec import to_json

__all__ = ["command"]

MIN_OPSET = 18


@click.command("export")
@click.argument("checkpoint", required=False, type=INPUT)
@option("-o", "--output", required=True, type=OUTPUT, help="ONNX file to write; its manifest is written next to it.")
@arch_option
@option("--random-init", is_flag=True, help="Use random weights instead of a checkpoint, to measure latency.")
@option("--num-classes", type=click.IntRange(1), unset="the checkpoint's", help="Number of classes.")
@checkpoint_options
@input_form_option
@output_options
@preprocessing_options
@option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", help="Precision of weights and activations.")
@option(
    "--form",
    type=click.Choice(["plain", "dla"]),
    default="plain",
    help="dla: write attention and head in forms that a Jetson's DLA runs; CHECKPOINT may then be an .onnx file.",
)
@option(
    "--batch",
    callback=batch_size,
    default="dynamic",
    help="Batch size: 'dynamic', or a fixed number of images. A detector's is fixed, to 1 where it is not given.",
)
@option("--opset", type=click.IntRange(MIN_OPSET), default=20, help="ONNX opset version.")
@detector_options
@json_option
def command(random_init: bool, as_json: bool, **options: Any) -> None:
    """Export a checkpoint to ONNX, and check the file against PyTorch on random and real images.

    \b
    Examples:
      emca-deploy export model.pth.tar -o model.onnx
      emca-deploy export model.pth.tar --precision fp16 -o model.fp16.onnx
      emca-deploy export model.safetensors.index.json -o model.onnx
      emca-deploy export last.ckpt --weights plain -o model.onnx
      emca-deploy export --random-init --arch emca_eca_resnet50 -o r50.onnx
      emca-deploy export model.pth.tar --input uint8-nhwc -o model.uint8.onnx
      emca-deploy export model.onnx --form dla -o model.dla.onnx
      emca-deploy export mask_rcnn.pth --image-size 640 -o mask_rcnn.onnx
    """
    from emca_deploy.api.export import ExportRequest, export

    if random_init == (options["checkpoint"] is not None):
        raise InputError("export needs either a CHECKPOINT or --random-init", "give exactly one of the two")
    report = export(ExportRequest(**options), None if as_json else lambda source: print_source(to_json(source)))
    tell(notes=report.notes)
    show(report, as_json, lambda: print_exported(report))
