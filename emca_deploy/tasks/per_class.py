"""Accuracy class by class: recall, precision, and which classes are taken for which."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Int64Array
from emca_deploy.results.accuracy import ClassAccuracy, Confusion

__all__ = ["LARGEST_CONFUSION", "confused_pairs", "confusion_matrix", "per_class"]

LARGEST_CONFUSION = 100
"""Classes of a matrix that still fits a page; of more, the pairs most often confused say what there is to say."""

MOST_PAIRS = 20


def per_class(
    predicted: Int64Array, labels: Int64Array, names: Sequence[str], reference: Int64Array | None = None
) -> tuple[ClassAccuracy, ...]:
    """Return the accuracy of every class that is a label or a prediction, in order.

    Args:
        predicted: the candidate's class of each image, (N,) int64.
        labels: (N,) int64.
        names: names of the classes by index; those past its end are called by their index.
        reference: the reference's class of each image, (N,) int64.
    """
    width = int(max(predicted.max(), labels.max())) + 1
    samples, told = np.bincount(labels, minlength=width), np.bincount(predicted, minlength=width)
    hits = np.bincount(labels[predicted == labels], minlength=width)
    theirs = None if reference is None else np.bincount(labels[reference == labels], minlength=width)
    return tuple(
        ClassAccuracy(
            label=label,
            name=names[label] if label < len(names) else str(label),
            samples=int(samples[label]),
            recall=_percent(hits[label], samples[label]),
            precision=_percent(hits[label], told[label]),
            reference_recall=None if theirs is None else _percent(theirs[label], samples[label]),
        )
        for label in map(int, np.flatnonzero(samples + told))
    )


def _percent(part: np.int64, whole: np.int64) -> float | None:
    return 100 * int(part) / int(whole) if whole else None


def confusion_matrix(predicted: Int64Array, labels: Int64Array, classes: int) -> tuple[tuple[int, ...], ...] | None:
    """Return the images by label (row) and predicted class (column), classes by classes; None above `LARGEST_CONFUSION`."""
    if classes > LARGEST_CONFUSION:
        return None
    counts = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    return tuple(tuple(map(int, row)) for row in counts)


def confused_pairs(predicted: Int64Array, labels: Int64Array, most: int = MOST_PAIRS) -> tuple[Confusion, ...]:
    """Return the pairs of label and wrong prediction that occur most often, the most frequent first."""
    wrong = predicted != labels
    pairs: npt.NDArray[np.int64] = np.stack([labels[wrong], predicted[wrong]], axis=1)
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return tuple(Confusion(int(kinds[i, 0]), int(kinds[i, 1]), int(counts[i])) for i in order)
