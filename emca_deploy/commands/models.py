"""`emca-deploy models`: every architecture with its size, its cost and what was published of it."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.commands._console import console_for, json_option, print_json, progress

if TYPE_CHECKING:
    from emca_deploy.networks.registry import Architecture

__all__ = ["command"]

MEBI, GIBI = 2**20, 2**30
SMALLEST_IMAGE = 32  # the last stage's map is then one pixel


@dataclass(frozen=True)
class _Row:
    architecture: "Architecture"
    params: int
    macs: int

    def to_dict(self) -> dict[str, Any]:
        published = self.architecture.published
        return {
            "name": self.architecture.name,
            "family": self.architecture.family,
            "depth": self.architecture.depth,
            "params": self.params,
            "params_mi": self.params / MEBI,
            "macs": self.macs,
            "gflops_gi": self.macs / GIBI,
            "gmacs": self.macs / 1e9,
            "published": asdict(published) if published else None,
        }


@click.command("models")
@click.option(
    "--image-size", type=click.IntRange(min=SMALLEST_IMAGE), default=224, show_default=True, help="Pixels of the square input."
)
@click.option("--family", metavar="PREFIX", default="", help="Only architectures whose name starts so, for example emca_eca.")
@json_option
def command(image_size: int, family: str, as_json: bool) -> None:
    """List every architecture with parameters, GFLOPs and published accuracy.

    Parameters and multiply-adds are counted from the networks themselves, with 1000 classes. The paper counts parameters in
    units of 2**20 and "GFLOPs" in units of 2**30 multiply-adds; the table shows these and plain millions and billions.

    \b
    Example:
      emca-deploy models --family emca_eca
    """
    from emca_deploy._optional import import_optional
    from emca_deploy.errors import UnknownNameError
    from emca_deploy.networks.registry import ARCHITECTURES

    import_optional("torch")
    chosen = [architecture for name, architecture in ARCHITECTURES.items() if name.startswith(family)]
    if not chosen:
        families = {architecture.family for architecture in ARCHITECTURES.values()}
        raise UnknownNameError.of("family of architectures", family, families, "leave --family out to see them all")
    with progress("counting") as advance:
        rows = []
        for done, architecture in enumerate(chosen):
            advance(done, len(chosen))
            rows.append(_count(architecture, image_size))
    if as_json:
        print_json({"schema_version": 1, "image_size": image_size, "models": [row.to_dict() for row in rows]})
    else:
        _print_table(rows, image_size)


def _count(architecture: "Architecture", image_size: int) -> _Row:
    import torch

    from emca_deploy.networks.counting import count_macs, count_parameters
    from emca_deploy.networks.registry import create_model

    with torch.device("meta"):
        module = create_model(architecture.name)
    return _Row(architecture, count_parameters(module), count_macs(module, image_size))


def _print_table(rows: list[_Row], image_size: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = f"Architectures, {image_size}x{image_size}, 1000 classes"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))  # fits into 80 columns
    table.add_column("name", no_wrap=True)
    for header in ("params\n1e6", "params\n2**20", "GMACs\n1e9", "GFLOPs\n2**30", "top-1\n%", "top-5\n%", "paper's\nparams"):
        table.add_column(header, justify="right", no_wrap=True)
    family = rows[0].architecture.family
    for row in rows:
        if row.architecture.family != family:
            table.add_section()
            family = row.architecture.family
        table.add_row(*_cells(row))
    console = console_for()
    console.print(table)
    console.print("top-1, top-5, paper's params (2**20): published, ImageNet at 224x224", highlight=False)


def _cells(row: _Row) -> list[str]:
    published = row.architecture.published
    counted = [f"{row.params / 1e6:.3f}", f"{row.params / MEBI:.3f}", f"{row.macs / 1e9:.3f}", f"{row.macs / GIBI:.3f}"]
    figures = [f"{published.top1:.2f}", f"{published.top5:.2f}", f"{published.params_mi:.3f}"] if published else ["-"] * 3
    return [row.architecture.name, *counted, *figures]
