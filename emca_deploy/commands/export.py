"""`emca-deploy export`."""

from typing import TYPE_CHECKING, Any

import click

from emca_deploy.commands._checkpoint_options import checkpoint_options, print_source
from emca_deploy.commands._console import echo, json_option, show, tell
from emca_deploy.commands._detector_options import detector_options, print_detector
from emca_deploy.commands._options import arch_option
from emca_deploy.commands._preprocessing_options import preprocessing_options
from emca_deploy.commands._types import INPUT, OUTPUT, batch_size, option
from emca_deploy.errors import InputError
from emca_deploy.results.codec import to_json

if TYPE_CHECKING:
    from emca_deploy.api.export import ExportReport

__all__ = ["command"]

MIN_OPSET = 18
FORMS = ("poolings", "bands", "products", "sums", "scales", "stacks")


@click.command("export")
@click.argument("checkpoint", required=False, type=INPUT)
@option("-o", "--output", required=True, type=OUTPUT, help="ONNX file to write; its manifest is written next to it.")
@arch_option
@option("--random-init", is_flag=True, help="Use random weights instead of a checkpoint, to measure latency.")
@option("--num-classes", type=click.IntRange(1), unset="the checkpoint's", help="Number of classes.")
@checkpoint_options
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
      emca-deploy export model.onnx --form dla -o model.dla.onnx
      emca-deploy export mask_rcnn.pth --image-size 640 -o mask_rcnn.onnx
    """
    from emca_deploy.api.export import ExportRequest, export

    if random_init == (options["checkpoint"] is not None):
        raise InputError("export needs either a CHECKPOINT or --random-init", "give exactly one of the two")
    report = export(ExportRequest(**options), None if as_json else lambda source: print_source(to_json(source)))
    tell(notes=report.notes)
    show(report, as_json, lambda: _print(report))


def _print(report: "ExportReport") -> None:
    if report.dla is not None:
        converted = report.dla
        forms = ", ".join(f"{count} {name}" for name in FORMS if (count := getattr(converted.forms, name)))
        echo(f"{converted.onnx}: in forms for a DLA: {forms or 'nothing to change'}; constants {converted.grown_mib:+.1f} MiB")
        parity = converted.parity
        echo(f"parity on {parity.samples} images: max error {parity.max_abs:.2g} ({parity.max_rel:.2g} relative)")
        for node in converted.forms.remaining:
            echo(f"not on a DLA: {node.node} ({node.operator}): {node.reason}")
        return
    made = report.exported
    assert made is not None  # only the form for a DLA has no export
    half, parity = made.half, made.fp32_parity
    precision, what = ("fp32", "parity") if half is None else ("fp16", "fp32 parity")
    echo(f"{made.onnx}: {made.arch}, {made.num_classes} classes, {made.params:,} parameters, {precision}")
    echo(f"{what} with PyTorch on {parity.samples} images: max error {parity.max_abs:.2g} ({parity.max_rel:.2g} relative)")
    if made.detector is not None:
        print_detector(made.detector)
    if half is None:
        return
    limit = f"at most {half.tolerance:.2g} from {half.roundings} roundings"
    echo(f"fp16 parity with fp32, emulated: {half.parity.max_rel:.2g} relative, {limit}")
    kept = half.graph.float32_nodes
    echo(f"{half.graph.half_nodes} nodes in fp16; in float32: {', '.join(f'{n} {why}' for why, n in kept.items())}")
    if zeroed := sum(half.graph.weights_rounded_to_zero.values()):
        tell(warnings=[f"{zeroed:,} of {half.graph.half_weights:,} weights are too small for fp16 and became 0"])
