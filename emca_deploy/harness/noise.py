"""How far the logits of a model are from those of another, in decibels."""

from math import inf, log10

import numpy as np

from emca_deploy.harness.spec import Float32Array

__all__ = ["ROWS_AT_ONCE", "signal_to_noise_db", "typical_signal_to_noise_db"]

ROWS_AT_ONCE = 4096
"""Images whose logits are widened to float64 at a time: 32 MiB for a thousand classes, however many images there are."""

LARGEST_DB = 150.0
"""What an image counts whose logits are the same: float32 itself ends there, at 2^-25 of the logits. JSON has no infinity."""


def signal_to_noise_db(reference: Float32Array, logits: Float32Array) -> float | None:
    """Return 10 log10(sum reference^2 / sum (reference - logits)^2), None where they are identical, -inf of zeros.

    Args:
        reference: (N, classes) float32.
        logits: likewise.
    """
    signal = noise = 0.0
    for start in range(0, len(reference), ROWS_AT_ONCE):
        wide = reference[start : start + ROWS_AT_ONCE].astype(np.float64)
        signal += float((wide**2).sum())
        noise += float(((wide - logits[start : start + ROWS_AT_ONCE]) ** 2).sum())
    if noise == 0:
        return None
    return 10 * log10(signal / noise) if signal else -inf


def typical_signal_to_noise_db(reference: Float32Array, logits: Float32Array) -> float:
    """Return the mean over images of each one's signal-to-noise ratio in dB, each within `LARGEST_DB` of 0.

    A few images whose logits are far off, and far from any other class, make up nearly all the noise of some networks: this ratio
    counts every image alike.

    Args:
        reference: (N, classes) float32.
        logits: likewise.
    """
    found = (signal_to_noise_db(reference[i : i + 1], logits[i : i + 1]) for i in range(len(reference)))
    return float(np.mean([LARGEST_DB if db is None else np.clip(db, -LARGEST_DB, LARGEST_DB) for db in found]))
