"""OpenCV's resize in numpy, for networks that were trained or are fed with it; each pixel is within 1 of OpenCV's.

Only INTER_AREA antialiases, and the nearest neighbour is the pixel at the left edge, not at the centre. The
sampling positions and weights are those of `modules/imgproc/src/resize.cpp` of OpenCV 4, which rounds the weights to 11 bits.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float64Array, Int64Array

__all__ = ["OPENCV_FILTERS", "opencv_resized"]

_CUBIC = -0.75
"""OpenCV's parameter of the cubic convolution; Pillow's is -0.5."""

Taps = tuple[Int64Array, Float64Array]
"""Positions and weights, (size, taps) each, of the pixels that make each pixel of a side."""


def opencv_resized(pixels: npt.NDArray[np.uint8], size: tuple[int, int], name: str) -> npt.NDArray[np.uint8]:
    """Return an image (h, w, channels) uint8 at another `size` (height, width).

    Args:
        pixels: The image.
        size: Height and width of the result.
        name: One of `OPENCV_FILTERS`.
    """
    taps = OPENCV_FILTERS[name]
    if name == "opencv-area" and (size[0] > pixels.shape[0] or size[1] > pixels.shape[1]):
        taps = _area_enlarged  # OpenCV averages areas only where neither side grows
    rows = _along(pixels.astype(np.float64), *taps(pixels.shape[0], size[0]))
    both = _along(rows.swapaxes(0, 1), *taps(pixels.shape[1], size[1])).swapaxes(0, 1)
    return np.clip(np.floor(both + 0.5), 0, 255).astype(np.uint8)


def _along(values: Float64Array, places: Int64Array, weights: Float64Array) -> Float64Array:
    """Return the weighted sums along the first axis."""
    total = np.zeros((len(places), *values.shape[1:]))
    for place, weight in zip(places.T, weights.T, strict=True):
        total += values[place] * weight[:, None, None]
    return total


def _nearest(have: int, want: int) -> Taps:
    places = np.minimum(np.floor(np.arange(want) * (have / want)).astype(np.int64), have - 1)
    return places[:, None], np.ones((want, 1))


def _linear(have: int, want: int) -> Taps:
    centre = (np.arange(want) + 0.5) * (have / want) - 0.5
    first = np.floor(centre).astype(np.int64)
    share = np.where((first < 0) | (first >= have - 1), 0, centre - first)
    first = np.clip(first, 0, have - 1)
    return np.stack([first, np.minimum(first + 1, have - 1)], 1), np.stack([1 - share, share], 1)


def _cubic(have: int, want: int) -> Taps:
    centre = (np.arange(want) + 0.5) * (have / want) - 0.5
    first = np.floor(centre).astype(np.int64)
    t = centre - first
    near = [((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1 for x in (t, 1 - t)]
    far = ((_CUBIC * (t + 1) - 5 * _CUBIC) * (t + 1) + 8 * _CUBIC) * (t + 1) - 4 * _CUBIC
    weights = np.stack([far, near[0], near[1], 1 - far - near[0] - near[1]], 1)
    return np.clip(first[:, None] + np.arange(-1, 3), 0, have - 1), weights


def _area(have: int, want: int) -> Taps:
    scale = have / want
    start, end = np.arange(want) * scale, (np.arange(want) + 1) * scale
    places = np.floor(start).astype(np.int64)[:, None] + np.arange(int(np.ceil(scale)) + 1)
    weights = np.clip(np.minimum(places + 1, end[:, None]) - np.maximum(places, start[:, None]), 0, None)
    return np.minimum(places, have - 1), weights / weights.sum(axis=1, keepdims=True)


def _area_enlarged(have: int, want: int) -> Taps:
    scale = have / want
    first = np.floor(np.arange(want) * scale).astype(np.int64)
    share = (np.arange(want) + 1) - (first + 1) / scale
    share = np.where(share <= 0, 0, share - np.floor(share))
    share = np.where(first >= have - 1, 0, share)
    first = np.minimum(first, have - 1)
    return np.stack([first, np.minimum(first + 1, have - 1)], 1), np.stack([1 - share, share], 1)


OPENCV_FILTERS: dict[str, Callable[[int, int], Taps]] = {
    "opencv-linear": _linear,
    "opencv-cubic": _cubic,
    "opencv-area": _area,
    "opencv-nearest": _nearest,
}
"""Filters by the name that `Preprocessing.interpolation` has for them."""
