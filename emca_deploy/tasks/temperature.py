"""One number that makes a candidate's probabilities mean what its reference's did: the temperature its logits are divided by."""

from collections.abc import Iterator

import numpy as np

from emca_deploy.arrays import Float32Array, Float64Array, Int64Array
from emca_deploy.errors import DataError
from emca_deploy.results.accuracy import TemperatureFit
from emca_deploy.tasks.confidence import expected_calibration_error, log_probabilities
from emca_deploy.tasks.logits import predicted, row_slices

__all__ = ["LEAST_IMAGES", "fit_temperature", "judge_temperature"]

LEAST_IMAGES = 100
"""Fewest images to fit and judge a temperature with."""

_BOUNDS = (0.05, 20.0)

_USUAL = (0.5, 2.0)
"""Temperatures that a quantized network may need; one outside of these has lost its classes, which no temperature brings back."""
_STEPS = 60
_DRAWS = 400


def fit_temperature(logits: Float32Array, reference: Float32Array) -> float:
    """Return the temperature whose probabilities are nearest to the reference's.

    It minimizes the mean over images of the Kullback-Leibler divergence of softmax(logits / T) from softmax(reference). C. Guo et
    al., "On Calibration of Modern Neural Networks" (ICML 2017), fits T to labels; a quantized network has its fp32 network as a
    teacher, so this needs none. The divergence is convex in 1 / T: its derivative is found to be zero by bisection.

    Args:
        logits: Logits or probabilities of the candidate, (N, classes) float32, N >= 1.
        reference: Those of the reference on the same images, (N, classes) float32.
    """
    low, high = 1 / _BOUNDS[1], 1 / _BOUNDS[0]
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _slope(logits, reference, middle) > 0:
            high = middle
        else:
            low = middle
    return 2 / (low + high)


def judge_temperature(logits: Float32Array, reference: Float32Array, labels: Int64Array | None) -> TemperatureFit:
    """Fit a temperature on every second image, and return what it changes on the others.

    Args:
        logits: Logits or probabilities of the candidate, (N, classes) float32.
        reference: Those of the reference on the same images, (N, classes) float32.
        labels: Classes, (N,) int64; None leaves the calibration errors out.

    Raises:
        DataError: there are fewer than `LEAST_IMAGES` images.
    """
    if len(logits) < LEAST_IMAGES:
        problem = f"{len(logits)} images are too few to fit a temperature"
        raise DataError(problem, f"give at least {LEAST_IMAGES} images")
    temperature = fit_temperature(logits[::2], reference[::2])
    own, theirs = logits[1::2], reference[1::2]
    before, after = (_divergence(own, theirs, 1 / each) for each in (1.0, temperature))
    if after >= before or not _USUAL[0] <= temperature <= _USUAL[1]:  # chance of the fitted half, or another network
        temperature, after = 1.0, before
    errors = None if labels is None else _Errors(own, theirs, labels[1::2], temperature)
    return TemperatureFit(
        temperature=temperature,
        fitted_images=len(logits) - len(own),
        judged_images=len(own),
        divergence_before=before,
        divergence_after=after,
        ece_before=None if errors is None else errors.of("before"),
        ece_after=None if errors is None else errors.of("after"),
        ece_reference=None if errors is None else errors.of("reference"),
        ece_difference_ci95=None if errors is None else errors.interval(),
    )


class _Errors:
    """The expected calibration errors of candidate and reference on the same images, in percent."""

    def __init__(self, logits: Float32Array, reference: Float32Array, labels: Int64Array, temperature: float) -> None:
        right = predicted(logits) == labels
        self._sides = {
            "before": (_highest(logits, 1.0), right),
            "after": (_highest(logits, temperature), right),
            "reference": (_highest(reference, 1.0), predicted(reference) == labels),
        }

    def of(self, side: str, rows: Int64Array | None = None) -> float:
        """Return the error of a side, on some rows."""
        highest, right = self._sides[side]
        return 100 * (expected_calibration_error(highest, right) if rows is None else expected_calibration_error(
            highest[rows], right[rows]
        ))  # fmt: skip

    def interval(self) -> tuple[float, float]:
        """Return the 95% interval of the error with the temperature minus the reference's, from images drawn again."""
        images, random = len(self._sides["after"][0]), np.random.default_rng(0)
        drawn = (random.integers(0, images, images) for _ in range(_DRAWS))
        low, high = np.percentile([self.of("after", rows) - self.of("reference", rows) for rows in drawn], (2.5, 97.5))
        return float(low), float(high)


def _blocks(logits: Float32Array, reference: Float32Array) -> Iterator[tuple[Float64Array, Float64Array]]:
    """Yield the logs of the probabilities of both, some rows at a time."""
    for rows in row_slices(len(logits)):
        yield log_probabilities(logits[rows]), log_probabilities(reference[rows])


def _scaled(log_p: Float64Array, inverse: float) -> Float64Array:
    """Return the logs of the probabilities with the temperature 1 / inverse."""
    scaled = log_p * inverse
    scaled -= scaled.max(axis=1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))


def _slope(logits: Float32Array, reference: Float32Array, inverse: float) -> float:
    """Return the derivative of the summed divergence by the inverse temperature."""
    return sum(
        float(((np.exp(_scaled(own, inverse)) - np.exp(theirs)) * own).sum()) for own, theirs in _blocks(logits, reference)
    )


def _divergence(logits: Float32Array, reference: Float32Array, inverse: float) -> float:
    """Return the mean divergence in nats."""
    total = sum(float((np.exp(theirs) * (theirs - _scaled(own, inverse))).sum()) for own, theirs in _blocks(logits, reference))
    return total / len(logits)


def _highest(logits: Float32Array, temperature: float) -> Float64Array:
    """Return the highest probability of each image, (N,)."""
    found = [np.exp(_scaled(own, 1 / temperature).max(axis=1)) for own, _ in _blocks(logits, logits)]
    return np.concatenate(found)
