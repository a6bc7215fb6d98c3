"""`emca-deploy models`."""

from typing import TYPE_CHECKING

import click

from emca_deploy.commands._console import console_for, json_option, show
from emca_deploy.commands._progress_bars import progress
from emca_deploy.commands._types import option

if TYPE_CHECKING:
    from rich.table import Table

    from emca_deploy.api.models import ModelSize, ModelsReport

__all__ = ["command"]

SMALLEST_IMAGE = 32  # the last stage's map is then one pixel
HEADERS = ("params\n1e6", "params\n2**20", "GMACs\n1e9", "GFLOPs\n2**30", "top-1\n%", "top-5\n%", "paper's\nparams")
DETECTORS = """\
detectors: retinanet_NAME_fpn, faster_rcnn_NAME_fpn, mask_rcnn_NAME_fpn, with a
NAME of this table; `--family mask_rcnn` lists those of one kind"""


@click.command("models")
@option("--image-size", type=click.IntRange(min=SMALLEST_IMAGE), default=224, help="Side of the square input in pixels.")
@option(
    "--family",
    metavar="PREFIX",
    default="",
    show_default=False,
    help="List only names with this prefix, such as emca_eca or mask_rcnn.",
)
@json_option
def command(image_size: int, family: str, as_json: bool) -> None:
    """List all architectures with their size and published accuracy.

    Parameters and multiply-adds are counted from the networks, with 1000 classes. The paper counts parameters in units of 2**20
    and "GFLOPs" in units of 2**30 multiply-adds; the table shows both these and millions and billions.

    Detectors are listed where the prefix is one of theirs, with 80 classes, and in --json.

    \b
    Example:
      emca-deploy models --family emca_eca
    """
    from emca_deploy.api.models import models

    with progress("counting") as advance:
        report = models(image_size, family, advance)
    show(report, as_json, lambda: _print(report))


def _print(report: "ModelsReport") -> None:
    if report.models:
        _print_classifiers(report)
        if report.detectors:
            console_for().print(DETECTORS, highlight=False)
        return
    table = _table("Detectors, 80 classes", HEADERS[:2])
    for size in report.detectors:
        table.add_row(size.name, f"{size.params / 1e6:.3f}", f"{size.params_mi:.3f}")
    console_for().print(table)


def _table(title: str, headers: tuple[str, ...]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))  # fits into 80 columns
    table.add_column("name", no_wrap=True)
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _print_classifiers(report: "ModelsReport") -> None:
    table = _table(f"Architectures, {report.image_size}x{report.image_size}, 1000 classes", HEADERS)
    family = report.models[0].family
    for size in report.models:
        if size.family != family:
            table.add_section()
            family = size.family
        table.add_row(*_cells(size))
    console = console_for()
    console.print(table)
    console.print("top-1, top-5, paper's params (2**20): published, ImageNet at 224x224", highlight=False)


def _cells(size: "ModelSize") -> list[str]:
    published = size.published
    counted = [f"{size.params / 1e6:.3f}", f"{size.params_mi:.3f}", f"{size.gmacs:.3f}", f"{size.gflops_gi:.3f}"]
    figures = [f"{published.top1:.2f}", f"{published.top5:.2f}", f"{published.params_mi:.3f}"] if published else ["-"] * 3
    return [size.name, *counted, *figures]
