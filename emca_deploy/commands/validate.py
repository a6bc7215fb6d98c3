"""`emca-deploy validate`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.commands import _completions as completions
from emca_deploy.commands import _mlflow_option as tracking
from emca_deploy.commands._compared_options import compared_options
from emca_deploy.commands._console import echo, json_option, show, table_console, tell
from emca_deploy.commands._label_options import label_options
from emca_deploy.commands._measuring_options import (
    document_option,
    power_mode_option,
    precision_option,
    target_option,
    untuned_option,
)
from emca_deploy.commands._options import limit_option, output_name_option, threads_option
from emca_deploy.commands._outcome import INTERRUPTED
from emca_deploy.commands._preprocessing_options import preprocessing_options
from emca_deploy.commands._progress_bars import progress
from emca_deploy.commands._types import INPUT, option

__all__ = ["command"]


@click.command("validate")
@click.argument("artifact", shell_complete=completions.files)
@option("--data", required=True, type=INPUT, help="Labelled images: a folder, a .zip or an .npz file.")
@option("--annotations", type=INPUT, metavar="FILE.json", help="Objects of the images in COCO's format, for a detector.")
@option(
    "--backend",
    metavar="NAME",
    shell_complete=completions.backends,
    unset="the artifact's own",
    help="Backend to run ARTIFACT on.",
)
@target_option
@compared_options
@option(
    "--max-drop",
    type=click.FloatRange(0),
    metavar="PT",
    help="Accuracy gate: exit with 4 unless the 95% interval of the drop of top-1, or of AP, ends at PT points or below.",
)
@limit_option
@option("--batch", type=click.IntRange(1), default=16, help="Number of images per call.")
@threads_option
@precision_option
@power_mode_option
@untuned_option
@output_name_option
@preprocessing_options
@label_options
@document_option
@tracking.mlflow_option
@json_option
def command(output: Path | None, mlflow: str | None, as_json: bool, **options: Any) -> int:
    """Measure the accuracy of ARTIFACT, and its drop against a reference on the same images.

    The drop has Tango's 95 % score interval for paired proportions, that of a detector's AP a bootstrap interval over images.
    Without labels or annotations, only the agreement with the reference is measured. Options for preprocessing take priority
    over ARTIFACT's manifest.

    \b
    Examples:
      emca-deploy validate model.int8.onnx --data val/ --reference model.onnx \\
          --max-drop 0.5
      emca-deploy validate model.int8.onnx --data val/ --reference model.onnx \\
          --corruptions fog,motion-blur
    """
    from emca_deploy.api.validate import ValidateRequest, kept_logits, validate
    from emca_deploy.reporting.files import measured, write_document
    from emca_deploy.reporting.gate import closed_gate
    from emca_deploy.reporting.measured import print_measured

    tracking.check(mlflow, output)
    request = ValidateRequest(**options)
    try:
        report, unwritten = measured(
            lambda: validate(request, lambda name: progress(name, "images")),
            [(output, lambda found, path: write_document(found.accuracy, path))],
        )
    except KeyboardInterrupt:
        if not (kept := kept_logits(request)):
            raise
        files = " and ".join(map(str, kept))
        echo(f"interrupted: the answers so far are in {files}; the same command continues from them", err=True)
        return INTERRUPTED
    tell(notes=report.notes, warnings=report.warnings)
    show(report.accuracy, as_json, lambda: print_measured(report.accuracy, table_console()), report.unwritten or unwritten)
    tracking.log(mlflow, [output] if output is not None else [])
    if request.max_drop is not None and report.verdict is not None and not report.verdict.reached:
        raise closed_gate(request.max_drop, report.verdict, report.accuracy)
    return 0
