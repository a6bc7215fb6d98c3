"""`emca-deploy build`: an engine of one backend from an ONNX model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.commands._console import json_option, print_json

if TYPE_CHECKING:
    from emca_deploy.artifacts import Manifest

__all__ = ["command"]

SCHEMA_VERSION = 1


@click.command("build")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--backend", required=True, metavar="NAME", help="onnxruntime or openvino.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The engine to write; its manifest goes beside it."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compile for; one a physical core unless given.")
@click.option("--batch", type=click.IntRange(min=1), help="Specialise a dynamic batch to this size; left dynamic unless given.")
@json_option
def command(model: Path, backend: str, output: Path, threads: int | None, batch: int | None, as_json: bool) -> None:
    """Build a backend's engine from MODEL.onnx.

    An engine loads quicker than the model, and only where it was built: another runtime version or a processor without the
    instruction sets of this one is refused.

    \b
    emca-deploy build model.int8.onnx --backend openvino -o model.int8.ov --batch 1
    """
    from emca_deploy._machine import default_threads
    from emca_deploy.artifacts import read_manifest
    from emca_deploy.backends.base import RunOptions
    from emca_deploy.backends.registry import get_builder

    builder = get_builder(backend)
    source = read_manifest(model, verify=False)
    if source is not None and source.kind == "onnx" and source.backend not in (None, backend):
        click.echo(
            f"warning: {model} is quantized for backend '{source.backend}'; on '{backend}' it may be slow: "
            f"calibrate with --backend {backend}",
            err=True,
        )
    manifest = builder.build(model, output, RunOptions(threads or default_threads(), batch=batch))
    document = _document(output, manifest)
    if as_json:
        print_json(document)
    else:
        machine = manifest.details["machine"]
        click.echo(f"{output}: {backend} engine, {manifest.precision}, {document['size_mib']:.1f} MiB")
        click.echo(f"for {machine['model']} ({', '.join(machine['instruction_sets']) or machine['architecture']})", err=True)


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
    }
