"""Logits: what they say, their error against those of another model in decibels, and how they come back from probabilities."""

from dataclasses import dataclass
from math import inf, log10

import numpy as np

from emca_deploy.arrays import Float32Array, Float64Array, Int64Array

__all__ = ["ROWS_AT_ONCE", "LogitsNoise", "agreement_percent", "logits_of", "predicted", "signal_to_noise_db", "top1_percent"]

ROWS_AT_ONCE = 4096
"""Images whose logits are widened to float64 at a time: 32 MiB for a thousand classes, however many images there are."""

LARGEST_DB = 150.0
"""What an image counts whose logits are the same: float32 itself ends there, at 2^-25 of the logits. JSON has no infinity."""


SMALLEST = np.float32(1e-37)
"""Probabilities below this are zero or denormal in float32, and their logarithm says nothing."""


def predicted(logits: Float32Array) -> Int64Array:
    """Return the class of each image, (N,) int64, from its logits (N, classes) float32; the first of several highest ones."""
    classes: Int64Array = logits.argmax(axis=1).astype(np.int64)
    return classes


def top1_percent(classes: Int64Array, labels: Int64Array | None) -> float:
    """Return the percent of images whose class is that of their label, (N,) int64 each; 0 without labels."""
    return 0.0 if labels is None else 100 * float((classes == labels).mean())


def agreement_percent(reference: Float32Array, logits: Float32Array) -> float:
    """Return the percent of images that two models put into the same class, from logits (N, classes) float32 each."""
    return 100 * float((predicted(reference) == predicted(logits)).mean())


def logits_of(probabilities: Float32Array) -> Float32Array:
    """Return the logits (N, classes) float32 that a Softmax turned into probabilities, each row with mean zero.

    log p = z - log(sum(exp(z))): the logarithm differs from the logits by a constant for each image; subtracting the mean
    removes it.
    """
    logs: Float32Array = np.log(np.maximum(probabilities, SMALLEST), dtype=np.float32)
    centred: Float32Array = logs - logs.mean(axis=1, keepdims=True)
    return centred


@dataclass(frozen=True)
class LogitsNoise:
    """What two models' logits of the same images have in common, and what not.

    Attributes:
        signal: each image's sum of reference^2, (N,) float64.
        noise: each image's sum of (reference - logits)^2, (N,) float64.
    """

    signal: Float64Array
    noise: Float64Array

    @classmethod
    def of(cls, reference: Float32Array, logits: Float32Array) -> "LogitsNoise":
        """Measure it of (N, classes) float32 each."""
        signal, noise = np.empty(len(reference)), np.empty(len(reference))
        for start in range(0, len(reference), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            wide = reference[rows].astype(np.float64)
            signal[rows] = (wide**2).sum(axis=1)
            noise[rows] = ((wide - logits[rows]) ** 2).sum(axis=1)
        return cls(signal, noise)

    @property
    def all_db(self) -> float | None:
        """10 log10(sum reference^2 / sum (reference - logits)^2), None where they are identical, -inf of zeros."""
        signal, noise = float(self.signal.sum()), float(self.noise.sum())
        if noise == 0:
            return None
        return 10 * log10(signal / noise) if signal else -inf

    @property
    def typical_db(self) -> float:
        """The mean over images of each one's signal-to-noise ratio in dB, each within `LARGEST_DB` of 0.

        A few images whose logits are far off, and far from any other class, make up nearly all the noise of some networks: this
        ratio counts every image alike.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            decibels = 10 * np.log10(self.signal / self.noise)
        return float(np.clip(np.where(self.noise == 0, LARGEST_DB, decibels), -LARGEST_DB, LARGEST_DB).mean())


def signal_to_noise_db(reference: Float32Array, logits: Float32Array) -> float | None:
    """Return `LogitsNoise.all_db` of (N, classes) float32 each."""
    return LogitsNoise.of(reference, logits).all_db
