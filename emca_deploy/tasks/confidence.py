"""How confident a model is, and how rightly: mean confidence, expected calibration error, negative log-likelihood."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array, Float64Array, Int64Array
from emca_deploy.results.accuracy import ConfidenceBin
from emca_deploy.tasks.logits import predicted, row_slices

__all__ = ["BINS", "Confidence", "confidence_of", "expected_calibration_error", "log_probabilities", "reliability_of"]

BINS = 15
"""Number of bins of equal width over [0, 1], as in Guo et al. (2017)."""

_SUM_SLACK = 1e-3
_LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Confidence:
    """The confidence of a model.

    Attributes:
        mean_confidence: Mean over images of the highest probability, percent.
        ece: Expected calibration error, percent; None without labels.
        nll: Mean negative log-likelihood of the label in nats; None without labels.
        reliability: Bins of `ece` that have images; empty without labels.
    """

    mean_confidence: float
    ece: float | None
    nll: float | None
    reliability: tuple[ConfidenceBin, ...] = ()


def confidence_of(logits: Float32Array, labels: Int64Array | None) -> Confidence:
    """Return the confidence of a model.

    The probabilities are the softmax of the logits. Rows that are probabilities already, not negative and adding up to 1, are
    used directly: the model ends in a softmax.

    Args:
        logits: Finite values, (N, classes) float32, N >= 1.
        labels: Classes, (N,) int64, or None.
    """
    highest, own = np.empty(len(logits)), np.empty(len(logits))
    ready = _are_probabilities(logits)
    for rows in row_slices(len(logits)):
        log_p = _log_probabilities(logits[rows], ready)
        highest[rows] = np.exp(log_p.max(axis=1))
        if labels is not None:
            own[rows] = np.take_along_axis(log_p, labels[rows, None], axis=1)[:, 0]
    mean = 100 * float(highest.mean())
    if labels is None:
        return Confidence(mean, None, None)
    correct = predicted(logits) == labels
    error = expected_calibration_error(highest, correct)
    return Confidence(mean, 100 * error, -float(own.mean()), reliability_of(highest, correct))


def expected_calibration_error(confidence: Float64Array, correct: npt.NDArray[np.bool_], bins: int = BINS) -> float:
    """Return the difference between confidence and accuracy, averaged over bins by their number of images, in [0, 1].

    C. Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), equation 3: bin m holds the confidences in
    ((m - 1) / bins, m / bins].

    Args:
        confidence: Highest probability of each image, (N,) float64 in [0, 1], N >= 1.
        correct: Whether the prediction is right, (N,) bool.
        bins: Number of bins, of equal width.
    """
    gap = np.bincount(_bin_of(confidence, bins), weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def reliability_of(confidence: Float64Array, correct: npt.NDArray[np.bool_], bins: int = BINS) -> tuple[ConfidenceBin, ...]:
    """Return the bins of `expected_calibration_error` that have images, with the same arguments."""
    which = _bin_of(confidence, bins)
    images = np.bincount(which, minlength=bins)
    sums = [np.bincount(which, weights=values, minlength=bins) for values in (confidence, correct)]
    means = [np.round(100 * each / np.maximum(images, 1), 3) for each in sums]
    return tuple(
        ConfidenceBin(int(count), float(mean), float(share)) for count, mean, share in zip(images, *means, strict=True) if count
    )


def _bin_of(confidence: Float64Array, bins: int) -> Int64Array:
    return np.asarray(np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1))


def log_probabilities(logits: Float32Array) -> Float64Array:
    """Return the logs of the probabilities, (N, classes) float64; see `confidence_of`.

    Args:
        logits: Finite logits or probabilities, (N, classes) float32, N >= 1.
    """
    return _log_probabilities(logits, _are_probabilities(logits))


def _are_probabilities(logits: Float32Array) -> bool:
    return all(
        float(logits[rows].min()) >= 0 and float(np.abs(logits[rows].sum(axis=1, dtype=np.float64) - 1).max()) < _SUM_SLACK
        for rows in row_slices(len(logits))
    )


def _log_probabilities(logits: Float32Array, ready: bool) -> Float64Array:
    wide = logits.astype(np.float64)
    if ready:
        return np.asarray(np.log(np.clip(wide, _LEAST_PROBABILITY, 1)))
    wide -= wide.max(axis=1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=1, keepdims=True)))
