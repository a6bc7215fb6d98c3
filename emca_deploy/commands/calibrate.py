"""`emca-deploy calibrate`."""

from pathlib import Path

import click

from emca_deploy.commands._console import json_option, print_json, progress

__all__ = ["command"]


@click.command("calibrate")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Calibration images: folder, zip or npz.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The INT8 ONNX file.")
@click.option("--backend", required=True, help="Whose placement: openvino, onnxruntime, tensorrt or tensorrt-rtx.")
@click.option(
    "--method",
    default="minmax",
    show_default=True,
    help="How ranges come from values: minmax, moving-average[:MOMENTUM], percentile[:P], entropy or mse.",
)
@click.option("--samples", type=click.IntRange(1), default=300, show_default=True, help="Images to use; all if there are fewer.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of images.")
@click.option("--keep-float", multiple=True, metavar="PATTERN", help="Nodes that stay in float, for example 'stage1.*'.")
@click.option("--table", type=click.Path(path_type=Path), help="Range table to use or write.  [default: beside MODEL]")
@click.option("--threads", type=click.IntRange(1), help="For the fp32 pass.  [default: all cores]")
@json_option
def command(
    model: Path,
    data: Path,
    output: Path,
    backend: str,
    method: str,
    samples: int,
    seed: int,
    keep_float: tuple[str, ...],
    table: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Quantize MODEL to INT8 with Q/DQ placed for one backend.

    Ranges are measured once and kept in a table beside MODEL, so that the next backend needs no second pass.

    \b
    emca-deploy calibrate model.onnx --data images/ --backend openvino -o model.openvino.onnx
    """
    from emca_deploy._machine import default_threads
    from emca_deploy.calibration.calibrate import CalibrationOptions, calibrate_model, model_preprocessing
    from emca_deploy.data.sources import open_source

    options = CalibrationOptions(backend, method, samples, seed, threads or default_threads(), keep_float, table)
    source = open_source(data, model_preprocessing(model))
    with progress("measuring ranges") as report:
        result = calibrate_model(model, source, output, options, report)
    if result.samples < samples:
        click.echo(f"note: {data} has {result.samples} images, fewer than --samples {samples}; all were used", err=True)
    if as_json:
        print_json(result.to_dict())
        return
    counts = result.counts
    how = "reused from" if result.reused else "measured on"
    click.echo(f"{output}: INT8 for {backend}, {counts.weighted} operators in INT8, {counts.weighted_float} in float")
    click.echo(f"ranges {how} {result.table if result.reused else f'{result.samples} images, kept in {result.table}'}")
