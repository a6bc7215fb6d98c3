"""`emca-deploy calibrate`."""

from typing import Any

import click

from emca_deploy.api.names import METHODS, PLACED
from emca_deploy.commands import _completions as completions
from emca_deploy.commands import _options as shared
from emca_deploy.commands import _recovery_options as recovery
from emca_deploy.commands._calibration import print_calibration
from emca_deploy.commands._console import json_option, show, table_console, tell
from emca_deploy.commands._graph_options import input_form_option
from emca_deploy.commands._label_options import label_options
from emca_deploy.commands._placement_options import placement_options
from emca_deploy.commands._preprocessing_options import preprocessing_options
from emca_deploy.commands._progress_bars import stages
from emca_deploy.commands._types import INPUT, OUTPUT, option

__all__ = ["command"]


@click.command("calibrate")
@click.argument("model", type=INPUT)
@shared.data_option
@option("-o", "--output", required=True, type=OUTPUT, help="INT8 .onnx file to write; its manifest is written next to it.")
@option("--backend", required=True, shell_complete=completions.backends, help=f"Backend to quantize for: {PLACED}.")
@option(
    "--method",
    default="auto",
    shell_complete=completions.methods,
    help=f"Calibration method: {METHODS}, or auto (mse:10, or minmax or mse where clearly better).",
)
@recovery.recover_option
@recovery.checkpoint_option
@recovery.finetune_budget_option
@shared.samples_option
@option("--seed", type=int, default=0, help="Random seed for the choice of images.")
@option("--keep-float", multiple=True, metavar="PATTERN", help="Nodes to leave in float, such as 'stage1.*'; may be repeated.")
@placement_options
@option(
    "--max-drop",
    type=click.FloatRange(0),
    metavar="PT",
    help="Accuracy gate: largest drop of top-1, or of a detector's AP, in points, at its 95% upper bound.",
)
@option("--val", "validation", type=INPUT, help="Labelled images for --max-drop; must not include calibration images.")
@option("--annotations", type=INPUT, metavar="FILE.json", help="Objects of --val's images in COCO's format, for a detector.")
@shared.table_option
@option("--cache", type=OUTPUT, help="Also write TensorRT's calibration cache, the only form that a DLA accepts.")
@option("--tensorrt-version", metavar="VERSION", help="TensorRT version that will read the cache.")
@shared.threads_option
@input_form_option
@preprocessing_options
@label_options
@shared.output_name_option
@json_option
def command(as_json: bool, weight_bits: str, **options: Any) -> None:
    """Quantize MODEL, an .onnx file, to INT8 for one backend.

    Ranges are measured once and kept in a table next to MODEL, which the next calibration reuses.

    With --samples auto, ranges come from the images whose tensors reach farthest, among up to 225. No more images are looked at
    when clipping to these ranges costs 40 other images at most 0.2 dB. The result says how many were looked at and used.

    With --max-drop, the INT8 model is validated on the images of --val, on its own backend if that runs on this machine. Layers
    and blocks are left in float, the most harmful first, until the gate is reached. An interrupted search continues where it
    stopped. If the gate cannot be reached, the best model is still written, and the exit code is 4.

    With --recover finetune, the fp32 network of --checkpoint teaches the INT8 model for some minutes on the calibration images,
    without labels. With --max-drop, this happens only if the gate cannot be reached otherwise.

    With --placement measured, changes of the recipe are tried on the machine that is to run the model. A change must gain 1% for
    each 0.1 dB that the logits lose, and only what is shown to be faster replaces the recipe.

    \b
    Examples:
      emca-deploy calibrate model.onnx --data images/ --backend openvino \\
          -o model.int8.onnx
      emca-deploy calibrate model.onnx --data images/ --backend openvino \\
          -o model.int8.onnx --samples auto
      emca-deploy calibrate model.onnx --data images/ --backend openvino \\
          -o model.int8.onnx --max-drop 0.5 --val val/
      emca-deploy calibrate model.onnx --data images/ --backend tensorrt \\
          -o model.int8.onnx --cache model.cache --tensorrt-version 10.3.0
    """
    from emca_deploy.api.calibrate import CalibrateRequest, calibrate
    from emca_deploy.reporting.gate import missed_gate, print_gate

    request = CalibrateRequest(weight_bits=None if weight_bits == "auto" else int(weight_bits), **options)
    with stages(tell=False) as stage:
        report = calibrate(request, stage)
    tell(notes=report.notes, warnings=report.warnings)
    if report.gate is not None and not as_json:
        print_gate(report.gate, table_console())
    show(report, as_json, lambda: print_calibration(report, str(request.model)))
    if report.gate is not None and not report.gate.reached:
        raise missed_gate(report.gate, str(request.output))
