"""A bundle on the terminal."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.formats import fixed, plain
from emca_deploy.reporting.output import say, show_table
from emca_deploy.results.bundle import BundleReport, LayoutReport

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_bundle", "print_layout"]


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


def print_layout(report: LayoutReport, console: "Console") -> None:
    """Print the files that a server loads."""
    total = sum(each.size_bytes for each in report.files) / 2**20
    say(console, f"{plain(report.name)} for {report.layout}: {len(report.files)} files, {total:.1f} MiB")
    rows = [(each.name, fixed(each.size_bytes / 2**20, 3)) for each in report.files]
    show_table(console, ("file", "MiB"), [(list(map(plain, row)), False) for row in rows])
    say(console, f"{plain(str(report.path))}: README.md says how to start the server and what to send")
