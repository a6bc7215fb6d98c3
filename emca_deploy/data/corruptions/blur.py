"""Blur of ImageNet-C; see `noise` for the letters."""

import numpy as np

from emca_deploy.arrays import Float32Array
from emca_deploy.data.corruptions.filters import convolved, disk, gaussian, line, moved, scale_of, to_image

__all__ = ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"]


def defocus_blur(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x convolved with a disk of radius c s."""
    del random
    return convolved(image, disk(parameters[0] * scale_of(image)))


def glass_blur(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x seen through frosted glass: blurred by Gauss, its pixels moved at random, blurred again.

    sigma = c1 s; each pixel moves c3 times, each time by up to c2 s in both directions. The authors exchange pixels one after
    the other; here all pixels of one time move together.
    """
    sigma, distance, times = parameters
    scale = scale_of(image)
    found = convolved(image, gaussian(sigma * scale))
    for _ in range(int(times)):
        down, right = (random.random((2, *image.shape[:2]), np.float32) * 2 - 1) * np.float32(distance * scale)
        found = moved(found, down, right)
    return convolved(found, gaussian(sigma * scale))


def motion_blur(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x convolved with a line of sigma c s, at an angle between -45 and 45 degrees: the camera moves."""
    return convolved(image, line(parameters[0] * scale_of(image), random.uniform(-45, 45)))


def zoom_blur(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return the mean of x and of its centre, enlarged by 1, 1 + c2, 1 + 2 c2, ... below c1: the camera moves forward."""
    from PIL import Image

    del random
    end, step = parameters
    shown = Image.fromarray(to_image(image))
    total, factors = image.copy(), np.arange(1, end, step)
    for factor in factors:
        left, top = shown.width * (1 - 1 / factor) / 2, shown.height * (1 - 1 / factor) / 2
        box = (left, top, shown.width - left, shown.height - top)
        total += np.asarray(shown.resize(shown.size, Image.Resampling.BILINEAR, box), np.float32) / np.float32(255)
    return total / np.float32(len(factors) + 1)
