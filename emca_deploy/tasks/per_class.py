"""Accuracy by class: recall, precision, and which classes are confused."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Int64Array
from emca_deploy.results.accuracy import ClassAccuracy, Confusion

__all__ = ["LARGEST_CONFUSION", "confused_pairs", "confusion_matrix", "per_class"]

LARGEST_CONFUSION = 100
"""Largest number of classes of a confusion matrix; with more, only the most confused pairs are reported."""

MOST_PAIRS = 20


def per_class(
    predicted: Int64Array, labels: Int64Array, names: Sequence[str], reference: Int64Array | None = None
) -> tuple[ClassAccuracy, ...]:
    """Return the accuracy of every class that is a label or a prediction, in order.

    Args:
        predicted: Classes that the candidate predicts, (N,) int64.
        labels: True classes, (N,) int64.
        names: Names of the classes by index; a class without one is called by its index.
        reference: Classes that the reference predicts, (N,) int64.
    """
    width = int(max(predicted.max(), labels.max())) + 1
    samples, predictions = np.bincount(labels, minlength=width), np.bincount(predicted, minlength=width)
    hits = np.bincount(labels[predicted == labels], minlength=width)
    theirs = None if reference is None else np.bincount(labels[reference == labels], minlength=width)
    return tuple(
        ClassAccuracy(
            label=label,
            name=names[label] if label < len(names) else str(label),
            samples=int(samples[label]),
            recall=_percent(hits[label], samples[label]),
            precision=_percent(hits[label], predictions[label]),
            reference_recall=None if theirs is None else _percent(theirs[label], samples[label]),
        )
        for label in map(int, np.flatnonzero(samples + predictions))
    )


def _percent(part: np.int64, whole: np.int64) -> float | None:
    return 100 * int(part) / int(whole) if whole else None


def confusion_matrix(predicted: Int64Array, labels: Int64Array, classes: int) -> tuple[tuple[int, ...], ...] | None:
    """Return the number of images by label (row) and predicted class (column); None above `LARGEST_CONFUSION` classes."""
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
