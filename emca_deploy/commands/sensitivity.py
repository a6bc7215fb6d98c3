"""`emca-deploy sensitivity`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.api.names import PLACED, listed
from emca_deploy.commands._console import echo, json_option, print_json, table_console, tell_notes, tell_warnings
from emca_deploy.commands._options import output_name_option
from emca_deploy.commands._preprocessing_options import preprocessing_options
from emca_deploy.commands._progress_bars import stages

__all__ = ["command"]


@click.command("sensitivity")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Calibration images: folder, zip or npz.")
@click.option("--backend", required=True, help=f"Backend of the placement: {listed(PLACED)}.")
@click.option("--samples", type=click.IntRange(1), default=64, show_default=True, help="Images to compare logits on.")
@click.option("--table", type=click.Path(path_type=Path), help="Range table to use or write.  [default: beside MODEL]")
@click.option("--threads", type=click.IntRange(1), help="[default: all cores]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also draw a page (HTML) with a bar chart to this file.")
@preprocessing_options
@output_name_option
@json_option
def command(output: Path | None, as_json: bool, **options: Any) -> None:
    """What INT8 costs each layer and block of MODEL: quantized alone, and left alone in float.

    A simulation: ONNX Runtime computes the backend's placement in float arithmetic, not with that backend's kernels. Ranges and
    rounded weights are those of the last calibration of MODEL on the same data; ranges are measured where there was none, biases
    are not corrected. Results so far are kept beside the range table: an
    interrupted run goes on where it was, and a second one is immediate.

    \b
    emca-deploy sensitivity model.onnx --data images/ --backend openvino -o sensitivity.html
    """
    from emca_deploy.api.sensitivity import SensitivityRequest, sensitivity
    from emca_deploy.reporting.files import measured
    from emca_deploy.reporting.sensitivity import print_sensitivity, render_sensitivity, require_page

    if output is not None:
        require_page()
    with stages() as stage:
        found, unwritten = measured(
            lambda: sensitivity(SensitivityRequest(**options), stage),
            [(output, lambda found, path: path.write_text(render_sensitivity(found.report), encoding="utf-8"))],
        )
    tell_notes(found.notes)
    tell_warnings(found.warnings)
    if as_json:
        print_json(found.report)
    else:
        print_sensitivity(found.report, table_console())
        page = f"; page: {output}" if output is not None and unwritten is None else ""
        echo(f"\nkept in {found.side_file}{page}")
    if unwritten is not None:
        raise unwritten
