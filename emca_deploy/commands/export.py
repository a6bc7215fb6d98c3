"""`emca-deploy export`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from emca_deploy.commands._checkpoint_options import checkpoint_options, tell_source
from emca_deploy.commands._console import echo, json_option, print_json
from emca_deploy.commands._options import preprocessing_options, tell_assumed
from emca_deploy.errors import InputError

if TYPE_CHECKING:
    from emca_deploy.artifacts import Precision
    from emca_deploy.exporting.checkpoint import ExportOptions
    from emca_deploy.exporting.convert import HalfConversion
    from emca_deploy.exporting.dla_convert import DlaConversion
    from emca_deploy.networks.checkpoints import Weights
    from emca_deploy.preprocessing import PreprocessingOptions

__all__ = ["command"]

MIN_OPSET = 18
FORMS = ("poolings", "bands", "products", "sums", "scales", "stacks")


@click.command("export")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The ONNX file.")
@click.option("--arch", help="The architecture; inferred from the checkpoint when not given.")
@click.option("--random-init", is_flag=True, help="Fresh weights instead of a checkpoint (to try latency).")
@click.option("--num-classes", type=click.IntRange(1), help="Width of the logits; read from the checkpoint when not given.")
@checkpoint_options
@preprocessing_options
@click.option(
    "--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True, help="Of weights and activations."
)
@click.option(
    "--form",
    type=click.Choice(["plain", "dla"]),
    default="plain",
    show_default=True,
    help="dla: attention and head in forms that a Jetson's DLA runs, the same numbers; CHECKPOINT may then be an .onnx file.",
)
@click.option("--batch", default="dynamic", show_default=True, help="'dynamic', or a fixed number of images.")
@click.option("--opset", type=click.IntRange(MIN_OPSET), default=20, show_default=True, help="Of the ONNX file.")
@json_option
def command(
    checkpoint: Path | None,
    output: Path,
    arch: str | None,
    random_init: bool,
    num_classes: int | None,
    weights: "Weights | None",
    prefix: str | None,
    precision: "Precision",
    form: str,
    batch: str,
    opset: int,
    as_json: bool,
    preprocessing: "PreprocessingOptions",
) -> None:
    """Export a checkpoint to ONNX, checked against PyTorch on random and real images.

    \b
    emca-deploy export model.pth.tar -o model.onnx
    emca-deploy export model.pth.tar --precision fp16 -o model.fp16.onnx
    emca-deploy export model.safetensors.index.json -o model.onnx
    emca-deploy export last.ckpt --weights plain -o model.onnx
    emca-deploy export --random-init --arch emca_eca_resnet50 -o r50.onnx
    emca-deploy export model.onnx --form dla -o model.dla.onnx
    """
    if random_init == (checkpoint is not None):
        raise InputError("give either a CHECKPOINT or --random-init", "one of the two, not both and not neither")
    from emca_deploy.data.choosing import choose_preprocessing, network_facts
    from emca_deploy.exporting.checkpoint import ExportOptions, export_checkpoint

    used = choose_preprocessing("the network", preprocessing, None, network_facts(preprocessing))
    options = ExportOptions(arch, num_classes, used, _batch(batch), opset, precision, weights=weights, prefix=prefix)
    if form == "dla":
        _for_dla(checkpoint, output, options, as_json=as_json)
        return
    result = export_checkpoint(checkpoint, output, options, found=None if as_json else tell_source)
    tell_assumed(str(output), used)
    if as_json:
        print_json(result.to_dict())
        return
    parity = result.fp32_parity
    echo(f"{output}: {result.arch}, {result.num_classes} classes, {result.params:,} parameters, {precision}")
    what = "parity" if result.half is None else "fp32 parity"
    echo(f"{what} with PyTorch on {parity.samples} images: max error {parity.max_abs:.2g} ({parity.max_rel:.2g} relative)")
    if result.half is not None:
        _tell_half(result.half)


def _for_dla(checkpoint: Path | None, output: Path, options: "ExportOptions", *, as_json: bool) -> None:
    """Write the forms for a DLA of an ONNX file, or of what a checkpoint exports to."""
    from tempfile import TemporaryDirectory

    from emca_deploy.exporting.checkpoint import export_checkpoint
    from emca_deploy.exporting.dla_convert import convert_for_dla

    if options.precision != "fp32":
        raise InputError("--form dla with --precision fp16", "leave --precision out: TensorRT makes a DLA's fp16 from float32")
    if checkpoint is not None and checkpoint.suffix.lower() == ".onnx":
        document = (result := convert_for_dla(checkpoint, output)).to_dict()
    else:
        with TemporaryDirectory() as folder:
            plain = Path(folder) / output.name
            exported = export_checkpoint(checkpoint, plain, options, found=None if as_json else tell_source)
            result = convert_for_dla(plain, output)
        document = {**exported.to_dict(), **result.to_dict(), "source": str(checkpoint) if checkpoint else None}
    if as_json:
        print_json(document)
    else:
        _tell_dla(result)


def _tell_dla(result: "DlaConversion") -> None:
    forms = result.forms.to_dict()
    made = ", ".join(f"{count} {name}" for name in FORMS if (count := forms[name]))
    echo(f"{result.onnx}: in forms for a DLA: {made or 'nothing to change'}; constants {result.grown_mib:+.1f} MiB")
    parity = result.parity
    echo(f"parity on {parity.samples} images: max error {parity.max_abs:.2g} ({parity.max_rel:.2g} relative)")
    for node in result.forms.remaining:
        echo(f"not on a DLA: {node.node} ({node.operator}): {node.reason}")


def _tell_half(half: "HalfConversion") -> None:
    parity, losses = half.parity, half.graph.losses
    echo(
        f"fp16 parity with fp32, emulated: {parity.max_rel:.2g} relative, at most {half.tolerance:.2g} "
        f"from {half.roundings} roundings"
    )
    kept = half.graph.to_dict()["float32_nodes"]
    echo(f"{half.graph.half_nodes} nodes in fp16; in float32: {', '.join(f'{n} {why}' for why, n in kept.items())}")
    if losses.zeroed:
        echo(
            f"warning: {sum(losses.zeroed.values()):,} of {losses.weights:,} weights are too small for fp16 and became 0",
            err=True,
        )


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < 1:  # '²' is a digit too
        raise InputError(f"--batch {text}: neither 'dynamic' nor a number of images", "for example --batch 1")
    return int(text)
