"""`emca-deploy bundle`."""

from pathlib import Path

import click

from emca_deploy.commands._console import json_option, show, table_console, tell
from emca_deploy.commands._progress_bars import stages
from emca_deploy.commands._types import INPUT, OUTPUT, option

__all__ = ["command"]


@click.command("bundle")
@click.argument("sources", metavar="DIR|MODEL...", type=INPUT, nargs=-1, required=True)
@option("-o", "--output", type=OUTPUT, required=True, help="The bundle: a file NAME.emca, or a new folder.")
@option("--name", unset="the deployment's title, or the architecture", help="Name of the model.")
@option("--labels", type=INPUT, metavar="FILE", show_default=False, help="Names of the classes, one in each line.")
@option("--licence", metavar="NAME|FILE", show_default=False, help="Licence of the checkpoint.")
@option("--code", metavar="LANGUAGES", show_default=False, help="Add programs that classify images: python, cpp, or both.")
@option("--layout", metavar="SERVER", show_default=False, help="Write a server's folder instead: triton, ovms, mlflow or kserve.")
@json_option
def command(
    sources: tuple[Path, ...],
    output: Path,
    name: str | None,
    labels: Path | None,
    licence: str | None,
    code: str | None,
    layout: str | None,
    as_json: bool,
) -> None:
    """Put the artifacts of a deployment, or single MODELs, into one file or folder to hand over.

    The bundle holds the artifacts with their manifests, the ONNX models that engines were built from, ranges, results, labels, a
    model card of measured facts, a bill of materials (CycloneDX) and the checksums of all of it. The same inputs make the same
    bytes. ONNX Runtime opens the folder as a model package; any zip program unpacks the .emca file.

    \b
    Examples:
      emca-deploy bundle out -o model.emca --labels labels.txt \\
          --licence Apache-2.0
      emca-deploy bundle model.int8.onnx -o bundle --code python,cpp
      emca-deploy bundle out --layout triton -o model_repository
    """
    from emca_deploy.api.bundle import BundleRequest, bundle
    from emca_deploy.api.lay_out import lay_out
    from emca_deploy.reporting.bundle import print_bundle, print_layout

    languages = tuple(part.strip() for part in code.split(",")) if code else ()
    request = BundleRequest(sources, output, name, labels, licence, languages)
    if layout is None:
        with stages() as stage:
            report = bundle(request, stage)
        tell(notes=report.notes)
        show(report, as_json, lambda: print_bundle(report, table_console()))
    else:
        with stages() as stage:
            served = lay_out(request, layout, stage)
        tell(notes=served.notes)
        show(served, as_json, lambda: print_layout(served, table_console()))
