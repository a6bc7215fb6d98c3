"""`emca-deploy sensitivity`."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emca_deploy.backends.records import names_where, one_of
from emca_deploy.commands._console import echo, json_option, print_json, stages
from emca_deploy.commands._options import output_name_option, preprocessing_options, tell_images, tell_warnings
from emca_deploy.results.codec import to_json

if TYPE_CHECKING:
    from emca_deploy.preprocessing import PreprocessingOptions

__all__ = ["command"]


@click.command("sensitivity")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Calibration images: folder, zip or npz.")
@click.option("--backend", required=True, help=f"Whose placement: {one_of(names_where(recipe=True))}.")
@click.option("--samples", type=click.IntRange(1), default=64, show_default=True, help="Images to compare logits on.")
@click.option("--table", type=click.Path(path_type=Path), help="Range table to use or write.  [default: beside MODEL]")
@click.option("--threads", type=click.IntRange(1), help="[default: all cores]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also draw a page (HTML) with a bar chart to this file.")
@preprocessing_options
@output_name_option
@json_option
def command(
    model: Path,
    data: Path,
    backend: str,
    samples: int,
    table: Path | None,
    threads: int | None,
    output: Path | None,
    as_json: bool,
    output_name: str | None,
    preprocessing: "PreprocessingOptions",
) -> None:
    """What INT8 costs each layer and block of MODEL: quantized alone, and left alone in float.

    A simulation: ONNX Runtime computes the backend's placement in float arithmetic, not with that backend's kernels. Ranges and
    rounded weights are those of the last calibration of MODEL on the same data; ranges are measured where there was none, biases
    are not corrected. Results so far are kept beside the range table: an
    interrupted run goes on where it was, and a second one is immediate.

    \b
    emca-deploy sensitivity model.onnx --data images/ --backend openvino -o sensitivity.html
    """
    from emca_deploy._machine import default_threads
    from emca_deploy.artifacts import atomic_write
    from emca_deploy.calibration.calibrate import CalibrationOptions, ensure_ranges
    from emca_deploy.calibration.placement.place import find_recipe
    from emca_deploy.calibration.resume import side_path
    from emca_deploy.calibration.sensitivity import SensitivityOptions, measure_sensitivity, options_on_file, weights_on_file
    from emca_deploy.commands._console import table_console
    from emca_deploy.data.choosing import preprocessing_of_file
    from emca_deploy.data.sources import open_source
    from emca_deploy.reporting.sensitivity import print_sensitivity, render_sensitivity, require_page

    find_recipe(backend)
    source = open_source(data, preprocessing_of_file(model, preprocessing))
    calibration = CalibrationOptions(backend, threads=threads or default_threads(), table=table, output_name=output_name)
    calibration = options_on_file(model, source, calibration)
    if output:
        require_page()
    # The page is opened first: a folder that cannot be written to is better known before the minutes of measuring.
    with atomic_write(output) if output else nullcontext() as temporary, stages() as stage:
        ranges, path, _ = ensure_ranges(model, source, calibration, stage)
        side_file = side_path(path, backend, "sensitivity")
        options = SensitivityOptions(
            backend, samples, calibration.seed, calibration.threads, side_file=side_file, output_name=output_name
        )
        weights = weights_on_file(model, source, ranges, path, options)
        with stage("quantizing each part") as report:
            result = measure_sensitivity(model, source, ranges, options, weights, report)
        if temporary is not None:
            temporary.write_text(render_sensitivity(result), encoding="utf-8")
    if result.samples < samples:
        echo(f"note: {data} has {result.samples} images, fewer than --samples {samples}; all were used", err=True)
    tell_warnings(tell_images(model, data, source, preprocessing))
    if as_json:
        print_json(to_json(result))
    else:
        print_sensitivity(result, table_console())
        echo(f"\nkept in {side_file}{f'; page: {output}' if output else ''}")
