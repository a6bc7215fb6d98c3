"""Accuracies of corrupted images on the terminal."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.formats import fixed, interval, plain
from emca_deploy.reporting.output import say, show_table
from emca_deploy.results.corruptions import CorruptedKind, CorruptionReport

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["CORRUPTION_HEADINGS", "corruption_rows", "print_corruptions"]

CORRUPTION_HEADINGS = ("corruption", "reference", "top-1 %", "drop", "worst strength (95%)", "images")


def print_corruptions(report: CorruptionReport, console: "Console") -> None:
    """Print the mean and the worst cell of each kind, the kinds with the largest drops first."""
    cells = [cell for kind in report.kinds for cell in kind.cells]
    images = sum(cell.images for cell in cells)
    say(console, f"corrupted: {len(cells)} cells of up to {report.images:,} images, {images:,} in all", "bold")
    means = f"top-1 {fixed(report.top1)}%, the reference's {fixed(report.reference_top1)}%, drop {fixed(report.drop)} points"
    say(console, f"  mean over kinds: {means}")
    if report.max_drop is not None:
        decided = ", ".join(f"{verdict} {count}" for verdict, count in report.verdicts.items())
        say(console, f"  cells against {fixed(report.max_drop)} points: {decided}")
    worst = report.worst_class
    recalls = f"recall {fixed(worst.recall)}%, the reference's {fixed(worst.reference_recall)}%"
    say(console, f"  worst class {plain(worst.name)}: {recalls}")
    show_table(console, CORRUPTION_HEADINGS, [(row, row[0] == report.worst_kind) for row in corruption_rows(report)])


def corruption_rows(report: CorruptionReport) -> list[tuple[str, ...]]:
    """Return a row for each kind, that with the largest drop of a cell first."""
    return [_row(kind) for kind in sorted(report.kinds, key=lambda kind: -kind.worst.drop)]


def _row(kind: CorruptedKind) -> tuple[str, ...]:
    worst = kind.worst
    drop = f"{worst.strength}: {fixed(worst.drop)} ({interval(worst.drop_ci95)})"
    own, reference = fixed(kind.top1, 1), fixed(kind.reference_top1, 1)
    return kind.name, reference, own, fixed(kind.drop), drop, f"{worst.images:,}"
