"""`emca-deploy calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from emca_deploy._text import shell_word
from emca_deploy.backends.records import names_where, one_of
from emca_deploy.commands._console import echo, json_option, print_json, stages
from emca_deploy.commands._options import (
    label_options,
    output_name_option,
    preprocessing_options,
    recover_option,
    tell_images,
    tell_warnings,
)
from emca_deploy.results.codec import to_json

if TYPE_CHECKING:
    from emca_deploy.calibration.calibrate import Calibration
    from emca_deploy.calibration.float_part import FloatPart
    from emca_deploy.preprocessing import Labelling, PreprocessingOptions
    from emca_deploy.results.gate import GateReport

__all__ = ["command"]


@click.command("calibrate")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Calibration images: folder, zip or npz.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The INT8 ONNX file.")
@click.option("--backend", required=True, help=f"Whose placement: {one_of(names_where(recipe=True))}.")
@click.option(
    "--method",
    default="auto",
    show_default=True,
    help="How ranges come from values: minmax, moving-average[:MOMENTUM], percentile[:P], entropy, mse, "
    "or auto for the better of minmax and mse, judged by the logits.",
)
@recover_option
@click.option("--samples", type=click.IntRange(1), default=300, show_default=True, help="Images to use; all if there are fewer.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of images.")
@click.option("--keep-float", multiple=True, metavar="PATTERN", help="Nodes that stay in float, for example 'stage1.*'.")
@click.option(
    "--float-precision",
    type=click.Choice(("fp32", "fp16")),
    default="fp32",
    show_default=True,
    help="Of what stays in float. fp16 is for tensorrt from 10 on and tensorrt-rtx.",
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
@click.option("--val", type=click.Path(path_type=Path), help="Labelled images to measure the drop on, none used in calibration.")
@click.option("--table", type=click.Path(path_type=Path), help="Range table to use or write.  [default: beside MODEL]")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Also write TensorRT's calibration cache here: DLA takes nothing else."
)
@click.option("--tensorrt-version", metavar="VERSION", help="Of the TensorRT that will read the cache; it takes no other's.")
@click.option("--threads", type=click.IntRange(1), help="For the fp32 pass.  [default: all cores]")
@preprocessing_options
@label_options
@output_name_option
@json_option
def command(
    model: Path,
    data: Path,
    output: Path,
    backend: str,
    method: str,
    recover: str,
    samples: int,
    seed: int,
    keep_float: tuple[str, ...],
    float_precision: str,
    weight_bits: str,
    max_drop: float | None,
    val: Path | None,
    table: Path | None,
    cache: Path | None,
    tensorrt_version: str | None,
    threads: int | None,
    as_json: bool,
    output_name: str | None,
    preprocessing: "PreprocessingOptions",
    labelling: "Labelling",
) -> None:
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
    from emca_deploy._machine import default_threads
    from emca_deploy.calibration.calibrate import CalibrationOptions, calibrate_model
    from emca_deploy.data.choosing import preprocessing_of_file
    from emca_deploy.data.sources import open_source
    from emca_deploy.reporting.gate import missed_gate

    _check_gate(max_drop, val, labelling)
    _check_cache(cache, tensorrt_version, backend, max_drop is not None or bool(keep_float))
    options = CalibrationOptions(
        backend,
        method,
        samples,
        seed,
        threads or default_threads(),
        keep_float,
        table,
        recover,
        float_precision,
        None if weight_bits == "auto" else int(weight_bits),
        output_name,
    )
    source = open_source(data, preprocessing_of_file(model, preprocessing))
    gated: GateReport | None = None
    with stages(tell=False) as stage:
        if max_drop is None or val is None:
            result = calibrate_model(model, source, output, options, stage)
        else:
            from emca_deploy.api.gate.search import AccuracyGate, calibrate_within

            gate = AccuracyGate(max_drop, val, labelling=labelling)
            result, gated = calibrate_within(model, source, output, options, gate, stage)
    scales = _write_cache(model, result.table, cache, tensorrt_version)
    if result.samples < samples:
        echo(f"note: {data} has {result.samples} images, fewer than --samples {samples}; all were used", err=True)
    finished = tell_images(model, data, source, preprocessing)
    warnings = (*result.warnings, *(gated.warnings if gated is not None else ()), *finished)
    tell_warnings(warnings)
    if weight_bits == "auto" and result.weight_bits == 7:
        echo(
            "note: weights keep to 7 bits: this processor has no VNNI and saturates with 8; --weight-bits 8 for one that has it",
            err=True,
        )
    if as_json:
        cached = {"path": str(cache), "scales": scales, "tensorrt_version": tensorrt_version} if cache else None
        print_json({**result.to_dict(), "warnings": list(warnings), "gate": to_json(gated) if gated else None, "cache": cached})
    else:
        _print(result, gated)
        if cache is not None:
            echo(f"{cache}: calibration cache for TensorRT {tensorrt_version}, {scales} tensors, to go with {model}")
    if gated is not None and not gated.reached:
        raise missed_gate(gated, str(output))


def _check_gate(max_drop: float | None, val: Path | None, labelling: "Labelling") -> None:
    """Refuse half of what a gate needs."""
    from emca_deploy.errors import InputError

    if (max_drop is None) != (val is None):
        raise InputError("--max-drop and --val go together", "give the gate in points, and labelled images to measure it on")
    if val is None and labelling.says_something:
        raise InputError("--labels, --class-map, --label-offset and --class-order are for --val", "leave them out, or add --val")


def _check_cache(cache: Path | None, version: str | None, backend: str, partly_float: bool) -> None:
    """Refuse a cache that could not be written, before any work is done."""
    from emca_deploy.calibration.placement.calibration_cache import cache_version
    from emca_deploy.errors import InputError, OutputError

    if (cache is None) != (version is None):
        raise InputError("--cache and --tensorrt-version go together", "give the cache's file and the TensorRT that will read it")
    if cache is None or version is None:
        return
    if backend != "tensorrt":
        raise InputError(f"--cache: backend '{backend}' reads no calibration cache", "use --backend tensorrt")
    if partly_float:
        raise InputError(
            "--cache with --keep-float or --max-drop: a cache has no way to say which nodes stay in float",
            "leave them out, or build from the Q/DQ model",
        )
    cache_version(version)
    if not cache.parent.is_dir():
        remedy = f"make the folder first: mkdir -p {shell_word(str(cache.parent))}"
        raise OutputError(f"{cache}: cannot be written: no such folder", remedy)


def _write_cache(model: Path, table: Path, cache: Path | None, version: str | None) -> int:
    """Write the cache, if one is wanted, and return how many tensors it has."""
    from emca_deploy.calibration.placement.calibration_cache import write_model_cache

    return write_model_cache(model, table, cache, version) if cache is not None and version is not None else 0


def _print(result: "Calibration", gated: "GateReport | None") -> None:
    from emca_deploy.commands._console import table_console
    from emca_deploy.reporting.gate import print_gate

    if gated is not None:
        print_gate(gated, table_console())
    counts = result.counts
    how = "reused from" if result.reused else "measured on"
    stored = f", {counts.weight_only} of these with INT8 weights" if counts.weight_only else ""
    covered = result.coverage
    in_float = f"{counts.weighted_float} in float{stored}, {covered.int8_macs_percent:.1f}% of the multiply-adds in INT8"
    echo(f"{result.onnx}: INT8 for {result.backend}, {counts.weighted} operators in INT8, {in_float}")
    if result.float_part is not None:
        echo(_float_part(result.float_part))
    echo(
        f"ranges ({result.method}) {how} {result.table if result.reused else f'{result.samples} images, kept in {result.table}'}"
    )


def _float_part(found: "FloatPart") -> str:
    """Return one line on the float part in fp16: how much of it, and what that costs."""
    casts = sum(len(names) for names in found.graph.float_nodes.values())
    decibels = [f"{value:.1f}" if value is not None else "exact" for value in (found.sqnr_db["fp16"], found.sqnr_db["fp32"])]
    return (
        f"float part: {found.graph.half_nodes} nodes in fp16, {casts} in float32; simulated on {found.images} images: "
        f"{decibels[0]} dB against fp32 ({decibels[1]} without fp16), the same class for {found.same_class_percent:.1f}%"
    )
