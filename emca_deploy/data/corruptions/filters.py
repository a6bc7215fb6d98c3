"""What several kinds of corruptions are made of: filters, moved pixels and random textures. Images are (h, w, 3) float32."""

from math import ceil, cos, radians, sin

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array

__all__ = ["convolved", "disk", "enlarged", "gaussian", "line", "luminance", "moved", "plasma", "scale_of", "to_image"]

_WEIGHTS = np.array((0.299, 0.587, 0.114), np.float32)


def scale_of(image: Float32Array) -> float:
    """Return the shorter side as a share of 224 pixels.

    D. Hendrycks and T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ICLR 2019),
    give parameters for 224 pixels. Here lengths in pixels are multiplied by the scale, and amounts of noise, snow and fog by
    its square root. This comes near the parameters that the authors chose by hand for 64 pixels.
    """
    return float(min(image.shape[:2]) / 224)


def convolved(image: Float32Array, kernel: Float32Array) -> Float32Array:
    """Return the convolution with a kernel of odd sides that adds up to 1; borders are mirrored."""
    tall, wide = kernel.shape
    edge = ((tall // 2, tall // 2), (wide // 2, wide // 2), (0, 0))
    padded = np.pad(image, edge, mode="symmetric")
    size = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, size)[:, :, None]
    return np.asarray(np.fft.irfft2(spectrum, size, axes=(0, 1))[tall - 1 :, wide - 1 :], np.float32)


def disk(radius: float) -> Float32Array:
    """Return a disk whose edge fades out over one pixel: weights clip(radius + 1 - distance, 0, 1), divided by their sum."""
    reach = ceil(radius)
    axis = np.arange(-reach, reach + 1)
    return _normalized(np.clip(radius + 1 - np.hypot(axis[:, None], axis), 0, 1))


def gaussian(sigma: float) -> Float32Array:
    """Return Gauss's kernel exp(-distance^2 / (2 sigma^2)), to 3 sigma."""
    reach = max(1, ceil(3 * sigma))
    along = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    return _normalized(np.outer(along, along))


def line(sigma: float, angle: float) -> Float32Array:
    """Return a line from the centre at an angle in degrees: weights exp(-t^2 / (2 sigma^2)), t = 0 to 3 sigma pixels."""
    reach = ceil(3 * sigma) + 1
    steps = np.linspace(0, 3 * sigma, 4 * reach)
    rows, columns = reach + steps * sin(radians(angle)), reach + steps * cos(radians(angle))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    for down in (0, 1):  # each point is shared by the four pixels around it
        for right in (0, 1):
            share = np.abs(1 - down - (rows - top)) * np.abs(1 - right - (columns - left))
            np.add.at(kernel, (top + down, left + right), weights * share)
    return _normalized(kernel)


def moved(image: Float32Array, down: Float32Array, right: Float32Array) -> Float32Array:
    """Return the image whose pixel (y, x) is that at (y + down, x + right), bilinear; `down` and `right` are (h, w) pixels."""
    height, width = image.shape[:2]
    rows = np.clip(np.arange(height, dtype=np.float32)[:, None] + down, 0, height - 1)
    columns = np.clip(np.arange(width, dtype=np.float32) + right, 0, width - 1)
    top, left = rows.astype(np.int64), columns.astype(np.int64)
    bottom, other = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    y, x = (rows - top)[:, :, None], (columns - left)[:, :, None]
    above = image[top, left] * (1 - x) + image[top, other] * x
    below = image[bottom, left] * (1 - x) + image[bottom, other] * x
    return np.asarray(above * (1 - y) + below * y, np.float32)


def enlarged(grid: npt.NDArray[np.float64], size: tuple[int, ...]) -> Float32Array:
    """Return a grid of numbers at another size (height, width), bicubic."""
    from PIL import Image

    shown = Image.fromarray(grid.astype(np.float32))
    return np.asarray(shown.resize((size[1], size[0]), Image.Resampling.BICUBIC), np.float32)


def plasma(size: tuple[int, ...], decay: float, random: np.random.Generator) -> Float32Array:
    """Return a cloudy texture (height, width) of 0 to 1.

    It is the sum of uniform random grids of 2, 3, 5, 9, ... points a side, each enlarged to the size and weighted 1 / decay as
    much as the one before: a plasma fractal, whose details fade with the decay.
    """
    total, weight, cells = np.zeros(size, np.float32), 1.0, 1
    while cells < max(size):
        total += np.float32(weight) * enlarged(random.uniform(-1, 1, (cells + 1, cells + 1)), size)
        weight, cells = weight / decay, cells * 2
    total -= total.min()
    return np.asarray(total / max(float(total.max()), 1e-6), np.float32)


def luminance(image: Float32Array) -> Float32Array:
    """Return 0.299 R + 0.587 G + 0.114 B, (height, width, 1)."""
    return np.asarray((image @ _WEIGHTS)[:, :, None], np.float32)


def to_image(image: Float32Array) -> npt.NDArray[np.uint8]:
    """Return pixels of 8 bits."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _normalized(kernel: npt.NDArray[np.float64]) -> Float32Array:
    return np.asarray(kernel / kernel.sum(), np.float32)
