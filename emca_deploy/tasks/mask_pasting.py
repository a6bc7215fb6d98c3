"""Masks of detections at the size of their images, from probabilities on a small grid over each box."""

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array, Int64Array
from emca_deploy.data.rle import counts_of_crop

__all__ = ["THRESHOLD", "pasted_counts"]

THRESHOLD = 0.5
"""Least probability of a pixel of the mask."""


def pasted_counts(grid: Float32Array, box: Float32Array, size: tuple[int, int]) -> Int64Array:
    """Return the run lengths of the mask of one detection in its image.

    A pixel takes the bilinear interpolation of the grid at its centre, with zeros around the grid, as in Detectron2's
    `paste_masks_in_image` and in mmdetection.

    Args:
        grid: Probabilities over the box, (rows, columns) float32.
        box: x1, y1, x2, y2 in pixels of the image, (4,) float32; it may reach outside.
        size: (height, width) of the image in pixels.
    """
    left, columns = _interpolation(float(box[0]), float(box[2]), grid.shape[1], size[1])
    top, rows = _interpolation(float(box[1]), float(box[3]), grid.shape[0], size[0])
    mask = (rows @ grid.astype(np.float32) @ columns.T) >= THRESHOLD
    return counts_of_crop(mask, top, left, size)


def _interpolation(start: float, end: float, cells: int, pixels: int) -> tuple[int, npt.NDArray[np.float32]]:
    """Return the first pixel near an interval, and the weight of each cell in each pixel from there on, (n, cells) float32."""
    first = int(np.clip(np.floor(start) - 1, 0, pixels))
    last = int(np.clip(np.ceil(end) + 1, first, pixels))
    if not end > start:
        return first, np.zeros((0, cells), np.float32)
    place = (np.arange(first, last) + 0.5 - start) / (end - start) * cells - 0.5
    weights = np.clip(1 - np.abs(place[:, None] - np.arange(cells)), 0, None)
    return first, weights.astype(np.float32)
