"""The figures that decide about a candidate, in one form for every task."""

from dataclasses import dataclass, replace

from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.detection import AveragePrecision, DetectionReport

__all__ = ["Figure", "figures_of", "worst_figure"]


@dataclass(frozen=True)
class Figure:
    """One measure of a candidate's accuracy, in percent, and its drop from the reference; None where it is unknown.

    Attributes:
        name: "top-1", "box AP" or "mask AP".
        value: Value of the candidate.
        reference: Value of the reference.
        drop: Value of the reference minus that of the candidate, points.
        drop_ci95: Paired 95% interval of the drop.
    """

    name: str
    value: float | None
    reference: float | None = None
    drop: float | None = None
    drop_ci95: tuple[float, float] | None = None


def figures_of(report: AccuracyReport | DetectionReport) -> tuple[Figure, ...]:
    """Return the figures of a report, the most important one first; a detector without masks has no mask AP."""
    if isinstance(report, AccuracyReport):
        if (reference := report.reference) is None:
            return (Figure("top-1", report.top1),)
        return (Figure("top-1", report.top1, reference.top1, reference.top1_drop, reference.top1_drop_ci95),)
    box, mask = Figure("box AP", _ap(report.box)), Figure("mask AP", _ap(report.mask))
    if (against := report.reference) is not None:
        box = replace(box, reference=_ap(against.box), drop=against.box_ap_drop, drop_ci95=against.box_ap_drop_ci95)
        mask = replace(mask, reference=_ap(against.mask), drop=against.mask_ap_drop, drop_ci95=against.mask_ap_drop_ci95)
    return (box,) if report.mask is None else (box, mask)


def _ap(figures: AveragePrecision | None) -> float | None:
    return None if figures is None else figures.ap


def worst_figure(report: AccuracyReport | DetectionReport) -> Figure:
    """Return the figure with the largest drop; the first where none has a drop."""
    return max(figures_of(report), key=lambda figure: float("-inf") if figure.drop is None else figure.drop)
