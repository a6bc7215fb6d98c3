"""`emca-deploy layers`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.commands._console import json_option, print_json, table_console, tell_notes
from emca_deploy.commands._measuring_options import document_option, untuned_option
from emca_deploy.commands._options import io_options
from emca_deploy.commands._progress_bars import progress

__all__ = ["command"]


@click.command("layers")
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True)
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="Backend to run on; repeat it to compare several.")
@click.option("--calls", type=click.IntRange(1), default=100, show_default=True, help="Profiled calls per artifact.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images a call.")
@click.option("--threads", type=click.IntRange(1), help="Threads per artifact.  [default: one a physical core]")
@click.option("--model", type=click.Path(path_type=Path), help="The .onnx file that engines were built from.")
@click.option("--layer-info", type=click.Path(path_type=Path), help="What trtexec's --exportLayerInfo wrote, for its profiles.")
@click.option("--no-roofline", is_flag=True, help="Do not measure what this machine reaches at best.")
@untuned_option
@click.option("--top", type=click.IntRange(0), default=25, show_default=True, help="Rows of each table.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.svg", help="Also draw the shares and the roofline.")
@document_option
@io_options
@json_option
def command(no_roofline: bool, top: int, plot: Path | None, output: Path | None, as_json: bool, **options: Any) -> None:
    """Time and precision of every layer of each ARTIFACT, and the share of attention, conversions and convolutions.

    An ARTIFACT is an .onnx file or an engine, of ONNX Runtime or OpenVINO; BACKEND=FILE runs it on that backend. A .json file is
    what TensorRT's `trtexec --exportProfile` wrote. Layers with multiply-adds are held against what one large convolution reaches
    here on the same runtime and threads (the roofline); the sum of all layers against a call without profiling.

    \b
    emca-deploy layers model.onnx model.openvino.onnx --plot layers.svg
    emca-deploy layers model.onnx --backend onnxruntime --backend openvino --threads 1
    emca-deploy layers profile.json --layer-info layers.json --model model.onnx
    """
    from emca_deploy.api.layers import LayersRequest, layers, layers_notes
    from emca_deploy.reporting.files import measured, write_document
    from emca_deploy.reporting.layers import layers_plot, print_layers

    request = LayersRequest(roofline=not no_roofline, **options)
    tell_notes(layers_notes(request))
    with progress("profiling layers") as advance:
        report, unwritten = measured(
            lambda: layers(request, advance),
            [
                (output, write_document),
                (plot, lambda found, path: path.write_text(layers_plot(found) + "\n", encoding="utf-8")),
            ],
        )
    if as_json:
        print_json(report)
    else:
        print_layers(report, table_console(), top)
    if unwritten is not None:
        raise unwritten
