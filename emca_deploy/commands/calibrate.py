"""`emca-deploy calibrate`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.api.names import METHODS, PLACED, listed
from emca_deploy.commands._console import json_option, print_json, table_console, tell_notes, tell_warnings
from emca_deploy.commands._options import label_options, output_name_option, recover_option
from emca_deploy.commands._preprocessing_options import preprocessing_options
from emca_deploy.commands._progress_bars import stages
from emca_deploy.commands._summaries import print_calibration

__all__ = ["command"]


@click.command("calibrate")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Calibration images: folder, zip or npz.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The INT8 ONNX file.")
@click.option("--backend", required=True, help=f"Backend of the placement: {listed(PLACED)}.")
@click.option(
    "--method",
    default="auto",
    show_default=True,
    help=f"How ranges come from values: {METHODS}, or auto for the better of minmax and mse, judged by the logits.",
)
@recover_option
@click.option("--samples", type=click.IntRange(1), default=300, show_default=True, help="Images to use; all if there are fewer.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed for the choice of images.")
@click.option("--keep-float", multiple=True, metavar="PATTERN", help="Nodes that stay in float, for example 'stage1.*'.")
@click.option(
    "--float-precision",
    type=click.Choice(("fp32", "fp16")),
    default="fp32",
    show_default=True,
    help="Precision of what stays in float. fp16 is for tensorrt from 10 on and tensorrt-rtx.",
)
@click.option(
    "--weight-bits",
    type=click.Choice(("auto", "7", "8")),
    default="auto",
    show_default=True,
    help="7 for processors without VNNI, which saturate with 8; auto looks at this one. For backends on processors.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0),
    metavar="PT",
    help="Keep the most harmful layers in float until the 95% interval of the top-1 drop ends below PT points; else exit 4.",
)
@click.option(
    "--val",
    "validation",
    type=click.Path(path_type=Path),
    help="Labelled images to measure the drop on, none used in calibration.",
)
@click.option("--table", type=click.Path(path_type=Path), help="Range table to use or write.  [default: beside MODEL]")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Also write TensorRT's calibration cache here: DLA takes nothing else."
)
@click.option("--tensorrt-version", metavar="VERSION", help="Version of the TensorRT that will read the cache.")
@click.option("--threads", type=click.IntRange(1), help="For the fp32 pass.  [default: all cores]")
@preprocessing_options
@label_options
@output_name_option
@json_option
def command(as_json: bool, weight_bits: str, **options: Any) -> None:
    """Quantize MODEL to INT8 with Q/DQ placed for one backend.

    Ranges are measured once and kept in a table beside MODEL, so that the next backend needs no second pass.

    With --max-drop the INT8 model is run on the labelled images of --val, on its own backend where that can run here, and the
    layers and blocks that do most harm stay in float, one after the other, until the drop is inside the gate. An interrupted
    search goes on where it was. Where the gate cannot be reached the best model found is written all the same.

    \b
    emca-deploy calibrate model.onnx --data images/ --backend openvino -o model.openvino.onnx
    emca-deploy calibrate model.onnx --data images/ --backend openvino -o model.openvino.onnx --max-drop 0.5 --val val/
    emca-deploy calibrate model.onnx --data images/ --backend tensorrt -o model.tensorrt.onnx --float-precision fp16
    emca-deploy calibrate model.onnx --data images/ --backend tensorrt -o m.onnx --cache m.cache --tensorrt-version 10.3.0
    """
    from emca_deploy.api.calibrate import CalibrateRequest, calibrate
    from emca_deploy.reporting.gate import missed_gate, print_gate

    request = CalibrateRequest(weight_bits=None if weight_bits == "auto" else int(weight_bits), **options)
    with stages(tell=False) as stage:
        report = calibrate(request, stage)
    tell_notes(report.notes)
    tell_warnings(report.warnings)
    if as_json:
        print_json(report)
    else:
        if report.gate is not None:
            print_gate(report.gate, table_console())
        print_calibration(report)
    if report.gate is not None and not report.gate.reached:
        raise missed_gate(report.gate, str(request.output))
