"""How sure a model is, and whether rightly so: mean confidence, expected calibration error, negative log-likelihood."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array, Float64Array, Int64Array
from emca_deploy.tasks.logits import ROWS_AT_ONCE, predicted

__all__ = ["BINS", "Confidence", "confidence_of", "expected_calibration_error"]

BINS = 15
"""Of equal width over [0, 1], as in Guo et al. (2017)."""

_SUM_SLACK = 1e-3
_LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Confidence:
    """What a model's probabilities are worth.

    Attributes:
        mean_percent: mean of the highest probability of each image.
        ece_percent: expected calibration error; None without labels.
        nll: mean negative log-likelihood of the label, nats; None without labels.
    """

    mean_percent: float
    ece_percent: float | None
    nll: float | None


def confidence_of(logits: Float32Array, labels: Int64Array | None) -> Confidence:
    """Return how sure a model is of its answers.

    Probabilities are the softmax of the logits, or what is given itself where every row is one already (a model that ends in a
    softmax): not negative and adding up to 1.

    Args:
        logits: (N, classes) float32, finite, N >= 1.
        labels: (N,) int64, or None.
    """
    highest, own = np.empty(len(logits)), np.empty(len(logits))
    ready = _are_probabilities(logits)
    for rows in _pieces(len(logits)):
        log_p = _log_probabilities(logits[rows], ready)
        highest[rows] = np.exp(log_p.max(axis=1))
        if labels is not None:
            own[rows] = np.take_along_axis(log_p, labels[rows, None], axis=1)[:, 0]
    mean = 100 * float(highest.mean())
    if labels is None:
        return Confidence(mean, None, None)
    error = expected_calibration_error(highest, predicted(logits) == labels)
    return Confidence(mean, 100 * error, -float(own.mean()))


def expected_calibration_error(confidence: Float64Array, correct: npt.NDArray[np.bool_], bins: int = BINS) -> float:
    """Return the gap between confidence and accuracy, averaged over bins by their number of images, in [0, 1].

    C. Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), equation 3: bin m holds the confidences in
    ((m - 1) / bins, m / bins].

    Args:
        confidence: (N,) float64 in [0, 1], N >= 1.
        correct: (N,) bool.
        bins: how many, of equal width.
    """
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(which, weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def _pieces(count: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, count, ROWS_AT_ONCE))


def _are_probabilities(logits: Float32Array) -> bool:
    return all(
        float(logits[rows].min()) >= 0 and float(np.abs(logits[rows].sum(axis=1, dtype=np.float64) - 1).max()) < _SUM_SLACK
        for rows in _pieces(len(logits))
    )


def _log_probabilities(logits: Float32Array, ready: bool) -> Float64Array:
    wide = logits.astype(np.float64)
    if ready:
        return np.asarray(np.log(np.clip(wide, _LEAST_PROBABILITY, 1)))
    wide -= wide.max(axis=1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=1, keepdims=True)))
