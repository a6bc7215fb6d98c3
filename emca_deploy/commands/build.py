"""`emca-deploy build`: an engine of one backend from an ONNX model."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.api.names import BUILT, PLANNED, listed
from emca_deploy.commands._board import power_mode_option
from emca_deploy.commands._console import echo, json_option, print_json
from emca_deploy.commands._options import io_options
from emca_deploy.commands._progress_bars import progress

if TYPE_CHECKING:
    from emca_deploy.artifacts import Manifest

__all__ = ["command"]

SCHEMA_VERSION = 1


@click.command("build")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--backend", required=True, metavar="NAME", help=f"{listed(BUILT)}.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The engine to write; its manifest goes beside it."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compile for (TensorRT: with).  [one a physical core]")
@click.option("--batch", type=click.IntRange(min=1), help="Specialise a dynamic batch to this size; left dynamic unless given.")
@click.option("--batches", metavar="MIN,OPT,MAX", help="TensorRT: a dynamic batch's smallest, likeliest, largest.  [1,1,64]")
@click.option("--workspace-mib", type=click.IntRange(min=1), help="TensorRT: most memory a layer may use besides its tensors.")
@click.option("--optimization-level", type=click.IntRange(0, 5), help="TensorRT: 0 builds fastest, 5 searches longest.  [3]")
@click.option("--timing-cache", metavar="FOLDER", type=click.Path(path_type=Path), help="tensorrt: keep and reuse measurements.")
@click.option(
    "--target-capability", "targets", multiple=True, metavar="8.6", help="tensorrt-rtx: a GPU to compile for; repeat it."
)
@click.option("--version-compatible", is_flag=True, help="tensorrt: an engine that later versions run, too.")
@click.option("--hardware-compatible", is_flag=True, help="tensorrt: an engine for all GPUs from Ampere on; not for Jetson.")
@click.option(
    "--dla-core", type=click.IntRange(min=0), help="tensorrt: run on this DLA core, and on the GPU what that cannot do."
)
@click.option(
    "--calibration-cache", metavar="FILE", type=click.Path(path_type=Path), help="tensorrt up to 10: INT8 of an fp32 model."
)
@click.option(
    "--trtexec", metavar="auto|PATH", help="tensorrt: build with TensorRT's own tool, where its Python package is missing."
)
@click.option("--target", metavar="NAME", help="jetson: on this board; or on another machine: ssh://host.  [default: here]")
@power_mode_option
@io_options
@json_option
def command(
    model: Path,
    backend: str,
    output: Path,
    threads: int | None,
    batch: int | None,
    trtexec: str | None,
    target: str | None,
    power_mode: str | None,
    as_json: bool,
    io: dict[str, Any],
    **choices: Any,
) -> None:
    """Build a backend's engine from MODEL.onnx.

    An engine loads quicker than the model, and only where it was built: another runtime version or a processor without the
    instruction sets of this one is refused. TensorRT builds on the GPU that the engine is for, TensorRT-RTX anywhere for the GPUs
    that are named. `emca-deploy plan` says beforehand what TensorRT on a board wants.

    \b
    emca-deploy build model.int8.onnx --backend openvino -o model.int8.ov --batch 1
    emca-deploy build model.int8.onnx --backend tensorrt-rtx -o model.engine --batches 1,8,32 --target-capability 8.9
    emca-deploy build model.onnx --backend tensorrt -o model.engine --dla-core 0 --calibration-cache model.cache --batch 1
    emca-deploy build model.int8.onnx --backend tensorrt --trtexec auto -o model.engine
    """
    from emca_deploy.artifacts import read_manifest
    from emca_deploy.errors import InputError
    from emca_deploy.requests import BuildRequest, TrtChoices
    from emca_deploy.targets.named_machines import open_target

    where, power_mode = open_target(target, power_mode)
    if batch is not None and choices["batches"] is not None:
        raise InputError("--batch and --batches exclude each other", "give --batch for one size, --batches for a range")
    source = read_manifest(model, verify=False)
    if source is not None and source.kind == "onnx" and source.backend not in (None, backend):
        echo(
            f"warning: {model} is quantized for backend '{source.backend}'; on '{backend}' it may be slow: "
            f"calibrate with --backend {backend}",
            err=True,
        )
    kept = _float_layers(model, backend) if choices["calibration_cache"] is not None and (trtexec or where.is_remote) else ()
    request = BuildRequest(
        str(model), backend, str(output), where.name, power_mode, threads, batch, TrtChoices(**choices), trtexec, io, kept
    )
    where.check(request)
    told = progress(f"building {output.name}") if backend in PLANNED or where.is_remote else nullcontext(None)
    with told as report:
        manifest, notes, warnings = where.run(request, report)
    for kind, lines in (("note", notes), ("warning", warnings)):
        for line in lines:
            echo(f"{kind}: {line}", err=True)
    document = _document(output, manifest)
    if as_json:
        print_json(document)
    else:
        _print(output, manifest, document["size_mib"])


def _float_layers(model: Path, backend: str) -> tuple[str, ...]:
    """Return the layers that a calibration cache of ours leaves in float; a model with Q/DQ is refused by its builder."""
    from emca_deploy.backends.registry import recipe_of
    from emca_deploy.calibration.placement.calibration_cache import float_layers
    from emca_deploy.onnx_file.file import OnnxFile

    recipe = recipe_of(backend)
    return () if recipe is None or OnnxFile.open(model).precision == "int8" else float_layers(model, recipe)


def _print(output: Path, manifest: "Manifest", size_mib: float) -> None:
    machine, built = manifest.details["machine"], manifest.details.get("tensorrt")
    mixed = built is not None and manifest.precision == "int8" and built["float_precision"] == "fp16"
    precision = "int8, float part fp16" if mixed else manifest.precision
    echo(f"{output}: {manifest.backend} engine, {precision}, {size_mib:.1f} MiB")
    if built is not None:
        echo(f"{built['int8_convolutions']} of {built['convolutions']} convolutions in INT8, {built['layers']} layers", err=True)
        for warning in built["warnings"]:
            echo(f"warning: {' '.join(warning.split())}", err=True)
    if dla := manifest.details.get("dla"):
        _print_dla(dla)
    echo(f"for {machine['model']} ({', '.join(machine['instruction_sets']) or machine['architecture']})", err=True)


def _print_dla(dla: Mapping[str, Any]) -> None:
    share = dla["macs_on_dla_percent"]
    work = "" if share is None else f", {share:.1f}% of the multiplications"
    echo(f"DLA: {len(dla['dla_parts'])} parts, {dla['nodes'].get('dla', 0)} nodes{work}", err=True)
    for node in dla["gpu_nodes"]:
        echo(f"on the GPU: {node}{': ' + reason if (reason := dla['refused'].get(node)) else ''}", err=True)


def _document(output: Path, manifest: "Manifest") -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "engine": str(output),
        "backend": manifest.backend,
        "precision": manifest.precision,
        "size_mib": output.stat().st_size / 2**20,
        "sha256": manifest.sha256,
        "threads": manifest.details["threads"],
        "batch": manifest.details["batch"],
        "versions": manifest.versions,
        "machine": manifest.details["machine"],
        **({"board": manifest.details["board"]} if "board" in manifest.details else {}),
        **{name: manifest.details[name] for name in ("tensorrt", "trtexec", "dla") if name in manifest.details},
    }
