"""Results of `validate` for a detector on the terminal."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.formats import fixed, interval, plain
from emca_deploy.reporting.output import say, show_table
from emca_deploy.results.detection import AveragePrecision, ClassPrecision, DetectionComparison, DetectionFlip, DetectionReport

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_detection"]

_CLASSES_SHOWN = 5
_FLIPS_SHOWN = 5


def print_detection(report: DetectionReport, console: "Console") -> None:
    """Print a detector's average precision, its difference from the reference, and its worst classes."""
    rate = "" if report.images_per_s is None else f", {fixed(report.images_per_s, 0)} images/s with decoding"
    objects = "" if report.objects is None else f"{report.objects:,} objects, "
    counts = f"{report.samples:,} images, {objects}{report.detections:,} detections{rate}"
    say(console, f"{plain(report.artifact)}: {counts}", "bold")
    _print_figures(report.box, report.mask, console)
    if report.reference is not None:
        _print_reference(report.reference, console)
    if report.per_class:
        _print_classes(report.per_class, console)
    names = {entry.label: entry.name for entry in report.per_class or ()}
    if report.reference is not None:
        for flip in report.reference.flips.detections[:_FLIPS_SHOWN]:
            say(console, f"  {_flip(flip, names)}")


def _print_figures(box: AveragePrecision | None, mask: AveragePrecision | None, console: "Console") -> None:
    for name, figures in (("box", box), ("mask", mask)):
        if figures is None:
            continue
        sizes = f"small {_ap(figures.ap_small)}, medium {_ap(figures.ap_medium)}, large {_ap(figures.ap_large)}"
        say(console, f"  {name} AP {_ap(figures.ap)}, AP50 {_ap(figures.ap50)}, AP75 {_ap(figures.ap75)}, {sizes}")


def _print_reference(reference: DetectionComparison, console: "Console") -> None:
    say(console, f"against {plain(reference.artifact)}", "bold")
    _print_figures(reference.box, reference.mask, console)
    drops = (
        ("box", reference.box_ap_drop, reference.box_ap_drop_ci95),
        ("mask", reference.mask_ap_drop, reference.mask_ap_drop_ci95),
    )
    for name, drop, limits in drops:
        if drop is not None and limits is not None:
            say(console, f"  drop of {name} AP {fixed(drop)} points (95%: {interval(limits)})")
    if reference.agreement is not None:
        share = f"{fixed(reference.agreement)}% of {reference.compared:,} detections with a score of {reference.least_score:g}"
        say(console, f"  {share} or more are matched at IoU 0.5")
    flips = reference.flips
    if flips.lost or flips.gained:
        lost, gained = _counted(flips.lost, flips.lost_right), _counted(flips.gained, flips.gained_right)
        say(console, f"  detections lost {lost}, gained {gained}, in {flips.images:,} images")


def _counted(count: int, right: int | None) -> str:
    return f"{count:,}" if right is None else f"{count:,} ({right:,} right)"


def _print_classes(classes: tuple[ClassPrecision, ...], console: "Console") -> None:
    masks = any(entry.mask_ap is not None for entry in classes)
    seen = [entry for entry in classes if entry.objects]
    first = "worst classes" if len(seen) > _CLASSES_SHOWN else "class"
    headings = (first, "objects", "box AP", *(("mask AP",) if masks else ()))
    rows = []
    for entry in sorted(seen, key=lambda entry: entry.box_ap or 0.0)[:_CLASSES_SHOWN]:
        mask = (_ap(entry.mask_ap),) if masks else ()
        rows.append(((plain(entry.name), f"{entry.objects:,}", _ap(entry.box_ap), *mask), False))
    show_table(console, headings, rows)


def _flip(flip: DetectionFlip, names: dict[int, str]) -> str:
    called = plain(names.get(flip.label, f"class {flip.label}"))
    right = "" if flip.right is None else ", right" if flip.right else ", wrong"
    return f"{flip.kind}: {plain(flip.file)}: {called} with score {fixed(flip.score)}{right}"


def _ap(value: float | None) -> str:
    return "-" if value is None else fixed(value)
