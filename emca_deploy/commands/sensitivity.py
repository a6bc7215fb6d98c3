"""`emca-deploy sensitivity`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.api.names import PLACED
from emca_deploy.commands import _completions as completions
from emca_deploy.commands._console import echo, json_option, show, table_console, tell
from emca_deploy.commands._options import data_option, output_name_option, table_option, threads_option
from emca_deploy.commands._preprocessing_options import preprocessing_options
from emca_deploy.commands._progress_bars import stages
from emca_deploy.commands._types import INPUT, OUTPUT, option

__all__ = ["command"]


@click.command("sensitivity")
@click.argument("model", type=INPUT)
@data_option
@option("--backend", required=True, shell_complete=completions.backends, help=f"Backend to simulate: {PLACED}.")
@option("--samples", type=click.IntRange(1), default=64, help="Number of images to compare logits on.")
@table_option
@threads_option
@option("-o", "--output", type=OUTPUT, help="Also write an HTML page with a bar chart to this file.")
@preprocessing_options
@output_name_option
@json_option
def command(output: Path | None, as_json: bool, **options: Any) -> None:
    """Simulate what INT8 costs each layer and block of MODEL, and what leaving it in float gains.

    Each layer and block is quantized alone, and then left in float alone. ONNX Runtime computes the backend's placement in float
    arithmetic, not with that backend's kernels. Ranges and rounded weights come from the last calibration of MODEL on the same
    data; missing ranges are measured, and biases are not corrected. Results are kept next to the range table: an interrupted run
    continues where it stopped.

    \b
    Example:
      emca-deploy sensitivity model.onnx --data images/ --backend openvino \\
          -o sensitivity.html
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
    tell(notes=found.notes, warnings=found.warnings)
    page = f"; page: {output}" if output is not None and unwritten is None else ""

    def print_text() -> None:
        print_sensitivity(found.report, table_console())
        echo(f"\nkept in {found.side_file}{page}")

    show(found.report, as_json, print_text, unwritten)
