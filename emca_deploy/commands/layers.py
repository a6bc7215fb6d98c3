"""`emca-deploy layers`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.commands import _completions as completions
from emca_deploy.commands._console import json_option, show, table_console, tell
from emca_deploy.commands._measuring_options import document_option, untuned_option
from emca_deploy.commands._options import backends_option, io_options, threads_option
from emca_deploy.commands._progress_bars import progress
from emca_deploy.commands._types import INPUT, OUTPUT, option

__all__ = ["command"]


@click.command("layers")
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, shell_complete=completions.files)
@backends_option
@option("--calls", type=click.IntRange(1), unset="100, or fewer within 30 s", help="Number of profiled calls per artifact.")
@option("--batch", type=click.IntRange(1), default=1, help="Number of images per call.")
@threads_option
@option("--model", type=INPUT, help="The .onnx file that engines were built from, if their manifests do not lead to it.")
@option("--layer-info", type=INPUT, help="Output of trtexec's --exportLayerInfo, for a trtexec profile.")
@option("--no-roofline", is_flag=True, help="Skip measuring the peak speed of this machine.")
@untuned_option
@option("--top", type=click.IntRange(0), default=25, help="Number of rows of each table.")
@option("--plot", type=OUTPUT, metavar="FILE.svg", help="Also draw the shares and the roofline to this file.")
@document_option
@io_options
@json_option
def command(no_roofline: bool, top: int, plot: Path | None, output: Path | None, as_json: bool, **options: Any) -> None:
    """Show time and precision of every layer of each ARTIFACT, and the shares of attention, conversions and convolutions.

    An ARTIFACT is an .onnx file or an engine of ONNX Runtime or OpenVINO; BACKEND=FILE runs it on that backend. A .json file is
    the output of TensorRT's `trtexec --exportProfile`. Layers with multiply-adds are compared with the roofline: the speed of one
    large convolution on the same runtime and threads. The sum of all layers is compared with a call without profiling.

    \b
    Examples:
      emca-deploy layers model.onnx model.int8.onnx --plot layers.svg
      emca-deploy layers model.onnx --backend onnxruntime --backend openvino
      emca-deploy layers profile.json --layer-info layers.json --model model.onnx
    """
    from emca_deploy.api.layers import LayersRequest, layers, layers_notes
    from emca_deploy.reporting.files import measured, write_document
    from emca_deploy.reporting.layers import layers_plot, print_layers

    request = LayersRequest(roofline=not no_roofline, **options)
    tell(notes=layers_notes(request))
    with progress("profiling layers") as advance:
        report, unwritten = measured(
            lambda: layers(request, advance),
            [
                (output, write_document),
                (plot, lambda found, path: path.write_text(layers_plot(found) + "\n", encoding="utf-8")),
            ],
        )
    show(report, as_json, lambda: print_layers(report, table_console(), top), unwritten)
