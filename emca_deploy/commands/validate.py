"""`emca-deploy validate`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.api.names import DEFAULT
from emca_deploy.commands._console import echo, json_option, print_json, table_console, tell_notes, tell_warnings
from emca_deploy.commands._measuring_options import power_mode_option, precision_option, untuned_option
from emca_deploy.commands._options import label_options, output_name_option
from emca_deploy.commands._outcome import INTERRUPTED
from emca_deploy.commands._preprocessing_options import preprocessing_options
from emca_deploy.commands._progress_bars import progress

__all__ = ["command"]


@click.command("validate")
@click.argument("artifact")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Labelled images: folder, zip or npz.")
@click.option("--backend", metavar="NAME", help="Backend to run ARTIFACT on.")
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="Where to run ARTIFACT: cpu, gpu, gpu:1, jetson, ssh://host; MODEL runs on the CPU there.",
)
@click.option("--reference", metavar="MODEL", help="The model to hold it against, for example the fp32 .onnx file.")
@click.option("--reference-backend", metavar="NAME", help=f"Backend to run MODEL on.  [default: {DEFAULT} for .onnx]")
@click.option(
    "--max-drop",
    type=click.FloatRange(0),
    metavar="PT",
    help="Exit 4 unless the images show that top-1 drops by PT points at most: the end of the drop's interval counts.",
)
@click.option("--limit", type=click.IntRange(1), help="Use this many images, the same number of each class.  [default: all]")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Images a call.")
@click.option("--threads", type=click.IntRange(1), help="[default: one a physical core]")
@precision_option
@click.option(
    "--logits",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Keep ARTIFACT's logits here; interrupted, the same command goes on where it was.",
)
@click.option("--reference-logits", type=click.Path(path_type=Path), metavar="FILE.npz", help="Keep MODEL's logits here.")
@click.option(
    "--flips", type=click.Path(path_type=Path), metavar="FILE.csv|.json", help="Write all images whose class differs here."
)
@power_mode_option
@untuned_option
@output_name_option
@preprocessing_options
@label_options
@json_option
def command(as_json: bool, **options: Any) -> int:
    """Measure the accuracy of ARTIFACT, and what it lost against a reference on the same images.

    The interval of the drop is that of paired proportions (Tango's score interval, 95 %). Without labels only the agreement with
    the reference is measured. Images are preprocessed as ARTIFACT's manifest says, unless options say otherwise.

    \b
    emca-deploy validate model.openvino.onnx --data val/ --reference model.onnx --max-drop 0.5
    """
    from emca_deploy.api.validate import ValidateRequest, kept_logits, validate
    from emca_deploy.reporting.accuracy import print_accuracy
    from emca_deploy.reporting.gate import closed_gate
    from emca_deploy.results.gate import Gate

    request = ValidateRequest(**options)
    try:
        report = validate(request, lambda name: progress(name, "images"))
    except KeyboardInterrupt:
        if not (kept := kept_logits(request)):
            raise
        files = " and ".join(map(str, kept))
        echo(f"interrupted: the logits until then are in {files}; the same command goes on from there", err=True)
        return INTERRUPTED
    tell_notes(report.notes)
    tell_warnings(report.warnings)
    if as_json:
        print_json(report.accuracy)
    else:
        print_accuracy(report.accuracy, table_console())
    if report.unwritten is not None:
        raise report.unwritten
    if request.max_drop is not None and report.verdict is not None and not report.verdict.reached:
        raise closed_gate(Gate(request.max_drop), report.verdict, report.accuracy)
    return 0
