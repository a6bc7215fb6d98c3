"""The part of `validate`'s result about corrupted images: immutable records that convert to JSON and back."""

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["CorruptedCell", "CorruptedClass", "CorruptedKind", "CorruptionReport", "CorruptionVerdict"]

CorruptionVerdict = Literal["within", "above", "undecided"]
"""Whether the interval of a drop is at or below a limit, above it, or contains it."""


@dataclass(frozen=True)
class CorruptedCell:
    """Images with one kind of corruption at one strength. Accuracies are in percent, differences in points.

    Attributes:
        strength: 1, the weakest, to 5.
        images: Number of images, after which the cell was decided or all were done.
        top1: Accuracy of the candidate.
        reference_top1: Accuracy of the reference on the same images.
        drop: Reference's accuracy minus the candidate's.
        drop_ci95: Paired 95% interval of the drop, which is right at all looks of `CorruptionReport.looks` together.
        lost: Images that only the reference gets right.
        won: Images that only the candidate gets right.
        verdict: Decision about the limit of the gate; None without one.
    """

    strength: int
    images: int
    top1: float
    reference_top1: float
    drop: float
    drop_ci95: tuple[float, float]
    lost: int
    won: int
    verdict: CorruptionVerdict | None = None


@dataclass(frozen=True)
class CorruptedKind:
    """One kind of corruption; accuracies and drop are means over its strengths.

    Attributes:
        group: "noise", "blur", "weather", "digital" or "camera".
    """

    name: str
    group: str
    top1: float
    reference_top1: float
    drop: float
    cells: tuple[CorruptedCell, ...]

    @property
    def worst(self) -> CorruptedCell:
        """The cell with the largest drop."""
        return max(self.cells, key=lambda cell: cell.drop)


@dataclass(frozen=True)
class CorruptedClass:
    """The corrupted images of one class, of all kinds and strengths together.

    Attributes:
        images: Number of corrupted images; one image counts once for each cell.
        recall: Share of them that the candidate predicts right, percent.
        reference_recall: Share of them that the reference predicts right, percent.
    """

    label: int
    name: str
    images: int
    recall: float
    reference_recall: float


@dataclass(frozen=True)
class CorruptionReport:
    """How the accuracies of candidate and reference hold on corrupted images; both see the same ones.

    Attributes:
        images: Most images of a cell.
        looks: Numbers of images at which each cell may have been decided.
        max_drop: Limit of the drop in points that cells were decided by; None decides by the width of the interval.
        top1: Mean corruption accuracy of the candidate: the mean over kinds of the means over strengths, percent.
        reference_top1: Mean corruption accuracy of the reference.
        drop: Their difference, points.
        kinds: Kinds in the order of ImageNet-C.
        worst_kind: Kind of the cell with the largest drop.
        worst_strength: Strength of that cell.
        worst_class: Class whose recall falls most from the reference's to the candidate's.
    """

    images: int
    looks: tuple[int, ...]
    max_drop: float | None
    top1: float
    reference_top1: float
    drop: float
    kinds: tuple[CorruptedKind, ...]
    worst_kind: str
    worst_strength: int
    worst_class: CorruptedClass

    @property
    def verdicts(self) -> dict[CorruptionVerdict, int]:
        """Number of cells with each verdict; empty without a limit."""
        found = [cell.verdict for kind in self.kinds for cell in kind.cells if cell.verdict is not None]
        return {verdict: found.count(verdict) for verdict in get_args(CorruptionVerdict)} if found else {}
