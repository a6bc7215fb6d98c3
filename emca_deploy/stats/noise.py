"""How far the logits of a model are from those of another, in decibels."""

from dataclasses import dataclass
from math import inf, log10

import numpy as np

from emca_deploy.arrays import Float32Array, Float64Array

__all__ = ["ROWS_AT_ONCE", "LogitsNoise", "signal_to_noise_db"]

ROWS_AT_ONCE = 4096
"""Images whose logits are widened to float64 at a time: 32 MiB for a thousand classes, however many images there are."""

LARGEST_DB = 150.0
"""What an image counts whose logits are the same: float32 itself ends there, at 2^-25 of the logits. JSON has no infinity."""


@dataclass(frozen=True)
class LogitsNoise:
    """What two models' logits of the same images have in common, and what not.

    Attributes:
        signal: each image's sum of reference^2, (N,) float64.
        noise: of (reference - logits)^2, likewise.
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
