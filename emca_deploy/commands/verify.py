"""`emca-deploy verify`."""

from pathlib import Path

import click

from emca_deploy.commands._console import echo, json_option, show
from emca_deploy.commands._types import INPUT

__all__ = ["command"]


@click.command("verify")
@click.argument("bundle", metavar="BUNDLE", type=INPUT)
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Compare every byte of BUNDLE, an .emca file or its unpacked folder, with its checksums, and print the digest to sign.

    The digest is the sha256 of SHA256SUMS in the bundle, the same for the file and the folder. It does not tell who made a
    bundle: sign it, and compare it with the signed one.

    \b
    Example:
      emca-deploy verify model.emca
    """
    from emca_deploy.api.bundle import inspect_bundle

    report = inspect_bundle(bundle)
    show(report, as_json, lambda: echo(f"{report.digest}  {report.path}: {len(report.files)} files, unchanged"))
