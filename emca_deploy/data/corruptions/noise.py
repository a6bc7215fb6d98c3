"""Noise of ImageNet-C. Here and in the other kinds x is the image, 0 to 1, and s its `scale_of`."""

from math import sqrt

import numpy as np

from emca_deploy.arrays import Float32Array
from emca_deploy.data.corruptions.filters import scale_of

__all__ = ["gaussian_noise", "impulse_noise", "shot_noise"]


def gaussian_noise(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x + n, n normal with deviation c sqrt(s): low light."""
    (deviation,) = parameters
    noise = random.standard_normal(image.shape, np.float32)
    return image + np.float32(deviation * sqrt(scale_of(image))) * noise


def shot_noise(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return Poisson(x c / s) s / c: light comes in photons."""
    photons = parameters[0] / scale_of(image)
    return np.asarray(random.poisson(image * photons) / photons, np.float32)


def impulse_noise(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x with a share c sqrt(s) of all values replaced by 0 or 1: defective bits."""
    share = parameters[0] * sqrt(scale_of(image))
    drawn = random.random(image.shape, np.float32)
    salt = random.random(image.shape, np.float32) < 0.5
    return np.where(drawn < share, salt.astype(np.float32), image)
