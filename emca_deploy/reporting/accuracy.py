"""Results of `validate` on the terminal."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.corruptions import print_corruptions
from emca_deploy.reporting.formats import fixed, interval, plain, significant
from emca_deploy.reporting.ledger import print_ledger
from emca_deploy.reporting.output import say, show_table
from emca_deploy.results.accuracy import AccuracyReport, ClassAccuracy, Flip, ReferenceComparison, TemperatureFit

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_accuracy"]

_CLASSES_SHOWN = 5
_FLIPS_SHOWN = 5


def print_accuracy(report: AccuracyReport, console: "Console") -> None:
    """Print an artifact's accuracy, its difference from the reference, and its worst classes."""
    rate = "" if report.images_per_s is None else f", {fixed(report.images_per_s, 0)} images/s with decoding"
    say(console, f"{plain(report.artifact)}: {report.samples:,} images{rate}", "bold")
    _print_side(report, console)
    if report.reference is not None:
        _print_reference(report.reference, console)
    if report.temperature is not None:
        _print_temperature(report.temperature, console)
    if report.per_class:
        _print_classes(report.per_class, console)
    names = {entry.label: entry.name for entry in report.per_class or ()}
    if report.confused:
        pairs = [f"{_called(c.label, names)} as {_called(c.predicted, names)} {c.samples:,}" for c in report.confused]
        say(console, f"  most often confused: {', '.join(pairs[:_CLASSES_SHOWN])}")
    if report.reference is not None and report.reference.flips is not None:
        for flip in report.reference.flips.images[:_FLIPS_SHOWN]:
            say(console, f"  {_flip(flip, names)}")
    if report.ledger is not None:
        print_ledger(report.ledger, console)
    if report.corruptions is not None:
        print_corruptions(report.corruptions, console)


def _print_side(side: AccuracyReport | ReferenceComparison, console: "Console") -> None:
    if side.top1 is not None:
        top5 = "" if side.top5 is None else f", top-5 {fixed(side.top5)}%"
        say(console, f"  top-1 {fixed(side.top1)}%{top5}")
    if side.mean_confidence is not None:
        labelled = side.ece is not None and side.nll is not None
        errors = f", ECE {fixed(side.ece or 0)}%, NLL {fixed(side.nll or 0, 4)} nats" if labelled else ""
        say(console, f"  mean confidence {fixed(side.mean_confidence)}%{errors}")


def _print_reference(reference: ReferenceComparison, console: "Console") -> None:
    say(console, f"against {plain(reference.artifact)}", "bold")
    _print_side(reference, console)
    if reference.top1_drop is not None:
        limits = "" if reference.top1_drop_ci95 is None else f" (95%: {interval(reference.top1_drop_ci95)})"
        chance = "" if reference.mcnemar_p is None else f", McNemar p {significant(reference.mcnemar_p)}"
        say(console, f"  drop {fixed(reference.top1_drop)} points{limits}{chance}")
    say(console, f"  same class for {fixed(reference.agreement)}%, {_sqnr(reference)}")
    flips = reference.flips
    if flips is not None and flips.total and flips.lost is not None and flips.won is not None:
        both = flips.total - flips.lost - flips.won
        kinds = f"right to wrong {flips.lost:,}, wrong to right {flips.won:,}, wrong to wrong {both:,}"
        say(console, f"  flips {flips.total:,}: {kinds}")


def _print_temperature(fit: TemperatureFit, console: "Console") -> None:
    changed = f"divergence {significant(fit.divergence_before)} to {significant(fit.divergence_after)} nats"
    say(console, f"  temperature {fixed(fit.temperature, 4)}: {changed}, on {fit.judged_images:,} images it was not fitted on")
    if fit.ece_before is not None and fit.ece_after is not None and fit.ece_reference is not None:
        ends = "" if fit.ece_difference_ci95 is None else f" (difference, 95%: {interval(fit.ece_difference_ci95)})"
        say(
            console,
            f"  ECE {fixed(fit.ece_before)}% to {fixed(fit.ece_after)}%, the reference's {fixed(fit.ece_reference)}%{ends}",
        )


def _sqnr(reference: ReferenceComparison) -> str:
    if reference.sqnr_db is None:
        return "logits identical"
    typical = "" if reference.typical_sqnr_db is None else f", of a typical image {fixed(reference.typical_sqnr_db, 1)} dB"
    return f"SQNR of the logits {fixed(reference.sqnr_db, 1)} dB{typical}"


def _print_classes(classes: tuple[ClassAccuracy, ...], console: "Console") -> None:
    with_reference = any(entry.reference_recall is not None for entry in classes)
    first = "worst classes" if len(classes) > _CLASSES_SHOWN else "class"
    headings = (first, "images", "recall %", *(("reference's",) if with_reference else ()), "precision %")
    rows = []
    seen = [entry for entry in classes if entry.samples]
    for entry in sorted(seen, key=lambda entry: entry.recall or 0.0)[:_CLASSES_SHOWN]:
        theirs = (fixed(entry.reference_recall),) if with_reference else ()
        own, precision = fixed(entry.recall), fixed(entry.precision)
        rows.append(((plain(entry.name), f"{entry.samples:,}", own, *theirs, precision), False))
    show_table(console, headings, rows)


def _called(label: int, names: dict[int, str]) -> str:
    return plain(names.get(label, str(label)))


def _flip(flip: Flip, names: dict[int, str]) -> str:
    what = plain(flip.file) or f"image {flip.index}"
    label = "" if flip.label is None else f" (is {_called(flip.label, names)})"
    return f"flip: {what}{label}: {_called(flip.reference, names)} became {_called(flip.candidate, names)}"
