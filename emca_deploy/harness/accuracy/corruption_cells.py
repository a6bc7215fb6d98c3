"""Counts of right answers on corrupted images, the decision when a cell has enough of them, and the report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emca_deploy.arrays import Int64Array
from emca_deploy.data.corruptions.corruption import STRENGTHS, Corruption
from emca_deploy.results.corruptions import (
    CorruptedCell,
    CorruptedClass,
    CorruptedKind,
    CorruptionReport,
    CorruptionVerdict,
)
from emca_deploy.stats.estimates import paired_difference_ci

__all__ = ["Cell", "Cells", "looks_for"]

FIRST_LOOK = 250
"""Images of a cell's first look; each further look has twice as many."""

ERROR = 0.05
NARROW = 0.5
"""Half the width, in points, of an interval that is narrow enough without a limit of the drop."""


def looks_for(images: int) -> tuple[int, ...]:
    """Return the numbers of images at which a cell is looked at: 250, 500, 1000, ... and all of them."""
    looks, next_look = [], FIRST_LOOK
    while next_look < images:
        looks.append(next_look)
        next_look *= 2
    return (*looks, images)


@dataclass
class Cell:
    """Counts of one kind at one strength: images, those right by each side, and those right by one side only."""

    kind: Corruption
    strength: int
    images: int = 0
    own: int = 0
    reference: int = 0
    lost: int = 0
    won: int = 0


class Cells:
    """All cells of some kinds, and the images of each class in all cells.

    The intervals of a cell are right at all its looks together with 95%: each of k looks, whose places are fixed before, gets
    1 / k of the error (Bonferroni).

    Args:
        labels: Labels of the images, (N,) int64, in the order in which they are run.
        classes: Number of classes.
        max_drop: Limit of the drop in points; None decides by the width of the interval.
    """

    def __init__(self, kinds: Sequence[Corruption], labels: Int64Array, classes: int, max_drop: float | None) -> None:
        self.all = [Cell(kind, strength) for kind in kinds for strength in STRENGTHS]
        self.looks = looks_for(len(labels))
        self._kinds, self._labels, self._max_drop = kinds, labels, max_drop
        self._by_class = np.zeros((3, classes), np.int64)

    def add(self, cell: Cell, own: Int64Array, reference: Int64Array) -> None:
        """Count the predicted classes of both sides for a cell's next images, (n,) int64 each."""
        labels = self._labels[cell.images : cell.images + len(own)]
        ours, theirs = own == labels, reference == labels
        cell.images += len(labels)
        cell.own += int(ours.sum())
        cell.reference += int(theirs.sum())
        cell.lost += int((theirs & ~ours).sum())
        cell.won += int((ours & ~theirs).sum())
        for row, kept in enumerate((np.ones_like(ours), ours, theirs)):
            self._by_class[row] += np.bincount(labels[kept], minlength=self._by_class.shape[1])

    def open(self) -> list[Cell]:
        """Return the cells that need more images."""
        return [cell for cell in self.all if cell.images < len(self._labels) and not self._is_decided(cell)]

    def report(self, names: Sequence[str]) -> CorruptionReport:
        """Return the report; `names` are those of the classes, or none."""
        kinds = tuple(self._kind(kind) for kind in self._kinds)
        worst = max(kinds, key=lambda kind: kind.worst.drop)
        own, reference = (float(np.mean([getattr(kind, side) for kind in kinds])) for side in ("top1", "reference_top1"))
        return CorruptionReport(
            images=len(self._labels),
            looks=self.looks,
            max_drop=self._max_drop,
            top1=own,
            reference_top1=reference,
            drop=reference - own,
            kinds=kinds,
            worst_kind=worst.name,
            worst_strength=worst.worst.strength,
            worst_class=self._worst_class(names),
        )

    def _interval(self, cell: Cell) -> tuple[float, float]:
        confidence = 1 - ERROR / len(self.looks)
        low, high = paired_difference_ci(cell.lost, cell.won, cell.images, confidence)
        return 100 * low, 100 * high

    def _is_decided(self, cell: Cell) -> bool:
        if not cell.images:
            return False
        if self._max_drop is not None:
            return self._verdict(cell) != "undecided"
        low, high = self._interval(cell)
        return (high - low) / 2 < NARROW

    def _verdict(self, cell: Cell) -> CorruptionVerdict | None:
        if self._max_drop is None:
            return None
        low, high = self._interval(cell)
        return "within" if high <= self._max_drop else "above" if low > self._max_drop else "undecided"

    def _kind(self, kind: Corruption) -> CorruptedKind:
        cells = tuple(self._cell(cell) for cell in self.all if cell.kind is kind)
        own, reference = (float(np.mean([getattr(cell, side) for cell in cells])) for side in ("top1", "reference_top1"))
        return CorruptedKind(kind.name, kind.group, own, reference, reference - own, cells)

    def _cell(self, cell: Cell) -> CorruptedCell:
        return CorruptedCell(
            strength=cell.strength,
            images=cell.images,
            top1=100 * cell.own / cell.images,
            reference_top1=100 * cell.reference / cell.images,
            drop=100 * (cell.lost - cell.won) / cell.images,
            drop_ci95=self._interval(cell),
            lost=cell.lost,
            won=cell.won,
            verdict=self._verdict(cell),
        )

    def _worst_class(self, names: Sequence[str]) -> CorruptedClass:
        images, own, reference = self._by_class
        seen = np.flatnonzero(images)
        label = int(max(seen, key=lambda one: (reference[one] - own[one]) / images[one]))
        count = int(images[label])
        name = names[label] if label < len(names) else str(label)
        return CorruptedClass(label, name, count, 100 * int(own[label]) / count, 100 * int(reference[label]) / count)
