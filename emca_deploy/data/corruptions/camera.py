"""Effects of the camera of an edge device; see `noise` for the letters. L = x^2.2 is the linear light."""

import numpy as np

from emca_deploy.arrays import Float32Array
from emca_deploy.data.corruptions.digital import encoded, shrunk
from emca_deploy.data.corruptions.filters import scale_of

__all__ = ["banding", "low_light", "nearest_resize", "strong_jpeg", "white_balance"]

_GAMMA = 2.2
_PHOTONS = 2000
_READ_NOISE = 4


def low_light(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return (g (Poisson(L c F) + n) / F)^(1/2.2): a share c of the light reaches the sensor.

    White fills a pixel with F = 2000 / s photons. Reading adds normal noise n with a deviation of 4 photons. The gain
    g = 1 / sqrt(c) makes up for half of the lost stops.
    """
    share = parameters[0]
    full = _PHOTONS / scale_of(image)
    photons = random.poisson(_light(image) * share * full) + _READ_NOISE * random.standard_normal(image.shape)
    return _encoded_light(np.asarray(photons / (full * share**0.5), np.float32))


def white_balance(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x whose linear red is multiplied by 2^c and blue by 2^-c, or the reverse: a wrong colour of the light."""
    stops = parameters[0] if random.random() < 0.5 else -parameters[0]
    return _encoded_light(_light(image) * np.array((2**stops, 1, 2**-stops), np.float32))


def banding(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x whose linear light is multiplied by 1 + c sin(2 pi (k y + phase)) in row y, 0 to 1.

    A rolling shutter reads row after row while a lamp flickers k = 2 to 5 times.
    """
    times, phase = random.uniform(2, 5), random.random()
    rows = np.arange(image.shape[0])[:, None, None] / image.shape[0]
    return _encoded_light(_light(image) * (1 + parameters[0] * np.sin(2 * np.pi * (times * rows + phase))).astype(np.float32))


def nearest_resize(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x shrunk by 1 + (c - 1) s without averaging, and enlarged bilinearly: a device that resizes by another filter."""
    from PIL import Image

    del random
    return shrunk(image, 1 + (parameters[0] - 1) * scale_of(image), Image.Resampling.NEAREST, Image.Resampling.BILINEAR)


def strong_jpeg(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x after JPEG compression with quality c at any size: a slow connection to the camera."""
    del random
    return encoded(image, round(parameters[0]))


def _light(image: Float32Array) -> Float32Array:
    return np.asarray(image**_GAMMA, np.float32)


def _encoded_light(light: Float32Array) -> Float32Array:
    return np.asarray(np.clip(light, 0, 1) ** (1 / _GAMMA), np.float32)
