"""Logits of a model that ends in a Softmax."""

import numpy as np

from emca_deploy.arrays import Float32Array

__all__ = ["logits_of"]

SMALLEST = np.float32(1e-37)
"""Probabilities below this are zero or denormal in float32, and their logarithm says nothing."""


def logits_of(probabilities: Float32Array) -> Float32Array:
    """Return the logits (N, classes) float32 that a Softmax turned into probabilities, each row with mean zero.

    log p = z - log(sum(exp(z))): the logarithm differs from the logits by a constant for each image; subtracting the mean
    removes it.
    """
    logs: Float32Array = np.log(np.maximum(probabilities, SMALLEST), dtype=np.float32)
    centred: Float32Array = logs - logs.mean(axis=1, keepdims=True)
    return centred
