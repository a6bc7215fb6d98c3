"""Logits: predicted classes, the error against another model's logits in decibels, and logits from probabilities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, log10

import numpy as np

from emca_deploy.arrays import Float32Array, Float64Array, Int64Array

__all__ = ["LogitsNoise", "agreement_percent", "logits_of", "predicted", "row_slices", "signal_to_noise_db", "top1_percent"]

ROWS_AT_ONCE = 4096
"""Images whose logits are converted to float64 at a time: 32 MiB for a thousand classes."""

LARGEST_DB = 150.0
"""Signal-to-noise ratio of identical logits: the precision of float32, 2^-25 of the logits. JSON has no infinity."""

SMALLEST = np.float32(1e-37)
"""Probabilities below this are zero or denormal in float32, and their logarithm means nothing."""


def row_slices(count: int) -> Iterator[slice]:
    """Yield slices over `count` rows, `ROWS_AT_ONCE` rows each."""
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, count, ROWS_AT_ONCE))


def predicted(logits: Float32Array) -> Int64Array:
    """Return the class of each image, (N,) int64, from logits (N, classes) float32; the lowest class wins a tie."""
    classes: Int64Array = logits.argmax(axis=1).astype(np.int64)
    return classes


def top1_percent(classes: Int64Array, labels: Int64Array | None) -> float:
    """Return the percentage of images whose class is their label, (N,) int64 each; 0 without labels."""
    return 0.0 if labels is None else 100 * float((classes == labels).mean())


def agreement_percent(reference: Float32Array, logits: Float32Array) -> float:
    """Return the percentage of images that two models put into the same class, from logits (N, classes) float32 each."""
    return 100 * float((predicted(reference) == predicted(logits)).mean())


def logits_of(probabilities: Float32Array) -> Float32Array:
    """Return logits (N, classes) float32, each row with mean zero, whose Softmax gives these probabilities.

    log p = z - log(sum(exp(z))) differs from the logits z by a constant for each image; subtracting the mean removes it.
    """
    logs: Float32Array = np.log(np.maximum(probabilities, SMALLEST), dtype=np.float32)
    centred: Float32Array = logs - logs.mean(axis=1, keepdims=True)
    return centred


@dataclass(frozen=True)
class LogitsNoise:
    """The difference between two models' logits of the same images.

    Attributes:
        signal: Sum of reference^2 of each image, (N,) float64.
        noise: Sum of (reference - logits)^2 of each image, (N,) float64.
    """

    signal: Float64Array
    noise: Float64Array

    @classmethod
    def of(cls, reference: Float32Array, logits: Float32Array, parts: Sequence[int] = ()) -> "LogitsNoise":
        """Return it for logits (N, classes) float32 each.

        Several `parts` are numbers of neighbouring columns, such as those of a detector's layers. The signal of a part is that of
        its numbers without their mean. Signal and noise are divided by the signal's mean over the images: all parts count alike.
        """
        if len(parts) <= 1:
            return cls._of_columns(reference, logits)
        signal, noise = np.zeros(len(reference)), np.zeros(len(reference))
        for end, count in zip(np.cumsum(parts), parts, strict=True):
            part = slice(end - count, end)
            centre = reference[:, part].mean(dtype=np.float64)
            found = cls._of_columns(reference[:, part] - np.float32(centre), logits[:, part] - np.float32(centre))
            scale = float(found.signal.mean()) or 1.0
            signal += found.signal / scale
            noise += found.noise / scale
        return cls(signal, noise)

    @classmethod
    def _of_columns(cls, reference: Float32Array, logits: Float32Array) -> "LogitsNoise":
        signal, noise = np.empty(len(reference)), np.empty(len(reference))
        for rows in row_slices(len(reference)):
            wide = reference[rows].astype(np.float64)
            signal[rows] = (wide**2).sum(axis=1)
            noise[rows] = ((wide - logits[rows]) ** 2).sum(axis=1)
        return cls(signal, noise)

    @property
    def all_db(self) -> float | None:
        """10 log10(sum reference^2 / sum (reference - logits)^2); None for identical logits, -inf for a reference of zeros."""
        signal, noise = float(self.signal.sum()), float(self.noise.sum())
        if noise == 0:
            return None
        return 10 * log10(signal / noise) if signal else -inf

    @property
    def image_db(self) -> Float64Array:
        """Signal-to-noise ratio of each image in dB, (N,) float64, limited to `LARGEST_DB` on both sides."""
        with np.errstate(divide="ignore", invalid="ignore"):
            decibels = 10 * np.log10(self.signal / self.noise)
        return np.clip(np.where(self.noise == 0, LARGEST_DB, decibels), -LARGEST_DB, LARGEST_DB)

    @property
    def typical_db(self) -> float:
        """Mean of `image_db`.

        In some networks nearly all noise comes from a few images whose logits are far off; this ratio counts all images alike.
        """
        return float(self.image_db.mean())


def signal_to_noise_db(reference: Float32Array, logits: Float32Array) -> float | None:
    """Return `LogitsNoise.all_db` of (N, classes) float32 each."""
    return LogitsNoise.of(reference, logits).all_db
