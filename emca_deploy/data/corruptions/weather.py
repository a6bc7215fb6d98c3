"""Weather of ImageNet-C; see `noise` for the letters. All textures are random: no photographs of frost are needed."""

from math import sqrt

import numpy as np

from emca_deploy.arrays import Float32Array
from emca_deploy.data.corruptions.filters import convolved, enlarged, line, luminance, plasma, scale_of

__all__ = ["brightness", "fog", "frost", "snow"]

_ICE = np.array((0.85, 0.95, 1.0), np.float32)
_FROST_DECAY = 1.6


def snow(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return w x + (1 - w) max(x, 1.5 gray(x) + 0.5) + f + f turned by 180 degrees.

    The flakes f have one value for each c2 s pixels (one at least), enlarged: 0.5 to 1 for a share c1 sqrt(s) of them, else 0.
    They fall: f is convolved with a line of sigma c3 s, at 45 to 135 degrees. w is c4. The authors cut normal noise off instead.
    """
    share, flake, sigma, weight = parameters
    scale, (height, width) = scale_of(image), image.shape[:2]
    size = max(1.0, flake * scale)
    drawn, bright = random.random((2, max(1, round(height / size)), max(1, round(width / size))))
    flakes = enlarged(np.where(drawn < share * sqrt(scale), (1 + bright) / 2, 0), (height, width))
    falling = convolved(np.clip(flakes, 0, 1)[:, :, None], line(sigma * scale, random.uniform(45, 135)))
    whitened = np.maximum(image, luminance(image) * np.float32(1.5) + np.float32(0.5))
    mixed = np.float32(weight) * image + np.float32(1 - weight) * whitened
    return np.asarray(mixed + falling + falling[::-1, ::-1], np.float32)


def frost(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return c1 x + c2 t, t = (0.3 + 0.7 (1 - |2 p - 1|)^2) times the colour of ice: ridges of a plasma fractal p."""
    kept, ice = parameters
    ridges = (1 - np.abs(2 * plasma(image.shape[:2], _FROST_DECAY, random) - 1)) ** 2
    return np.float32(kept) * image + np.float32(ice) * (np.float32(0.3) + np.float32(0.7) * ridges)[:, :, None] * _ICE


def fog(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return (x + t p) m / (m + t), p a plasma fractal with decay c2, m the largest value of x, t = c1 sqrt(s)."""
    thickness, decay = parameters[0] * sqrt(scale_of(image)), parameters[1]
    most = max(float(image.max()), 1e-6)
    clouds = plasma(image.shape[:2], decay, random)[:, :, None]
    return np.asarray((image + np.float32(thickness) * clouds) * np.float32(most / (most + thickness)), np.float32)


def brightness(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x with its value V = max(R, G, B) raised by c, at the same hue and saturation: x min(V + c, 1) / V."""
    del random
    value = image.max(axis=2, keepdims=True)
    raised = np.minimum(value + np.float32(parameters[0]), 1)
    return np.asarray(np.where(value > 0, image * (raised / np.maximum(value, np.float32(1e-6))), raised), np.float32)
