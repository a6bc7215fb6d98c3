"""A bundle on the terminal."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.formats import fixed, plain
from emca_deploy.reporting.output import say, show_table
from emca_deploy.results.bundle import BundleReport

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_bundle"]


def print_bundle(report: BundleReport, console: "Console") -> None:
    """Print the artifacts of a bundle, and what it says about classes and licence."""
    sizes = {each.name: each.size_bytes for each in report.files}
    total = sum(sizes.values()) / 2**20
    say(console, f"{plain(report.name)}: {len(report.files)} files, {total:.1f} MiB")
    rows = report.variants
    cells = [(each.name, each.backend or "any", each.precision, fixed(sizes[each.file] / 2**20, 1), each.file) for each in rows]
    show_table(console, ("artifact", "backend", "precision", "MiB", "file"), [(list(map(plain, row)), False) for row in cells])
    if report.classes:
        say(console, f"classes: {plain(', '.join(report.classes))}")
    say(console, f"licence of the checkpoint: {plain(report.licence or 'not stated')}")
    say(console, f"digest: {report.digest}")
