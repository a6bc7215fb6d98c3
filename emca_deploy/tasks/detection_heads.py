"""RoiAlign, the box head and the mask head in numpy; see `detection_post`."""

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from emca_deploy.arrays import Float32Array, Float64Array, Int64Array

__all__ = ["box_head", "mask_head", "roi_align"]

Weights = Mapping[str, Float32Array]
MASK_CONVOLUTIONS = 4


def roi_align(level: Float32Array, box: Float64Array, bins: int, sampling_ratio: int, aligned: bool) -> Float32Array:
    """Return the crop (C, bins, bins) of a box from a map (C, H, W) (He et al., 2017, section 3).

    Bilinear samples and their means are a product of two sums, one along each axis: two small matrices do both.

    Args:
        level: Map.
        box: x1, y1, x2, y2 in pixels of the map.
        bins: Bins along each axis.
        sampling_ratio: Samples of a bin along each axis; 0 takes as many as the bin is long in pixels, rounded up.
        aligned: Whether the samples are shifted by half a pixel; else the box is at least one pixel long.
    """
    columns = _samples(box[0], box[2], bins, sampling_ratio, aligned, level.shape[2])
    rows = _samples(box[1], box[3], bins, sampling_ratio, aligned, level.shape[1])
    used_y, used_x = (np.flatnonzero(each.any(axis=0)) for each in (rows, columns))
    if not len(used_y) or not len(used_x):
        return np.zeros((len(level), bins, bins), np.float32)
    y, x = slice(used_y[0], used_y[-1] + 1), slice(used_x[0], used_x[-1] + 1)
    crop: Float32Array = (rows[:, y] @ level[:, y, x] @ columns[:, x].T).astype(np.float32)
    return crop


def _samples(start: float, end: float, bins: int, sampling_ratio: int, aligned: bool, length: int) -> Float64Array:
    """Return the weight of each pixel of an axis in each bin, (bins, length)."""
    side = end - start if aligned else max(end - start, 1.0)
    ratio = sampling_ratio or max(int(np.ceil(side / bins)), 1)
    places = start - 0.5 * aligned + side * (np.arange(bins * ratio) + 0.5) / (bins * ratio)
    inside = (places >= -1) & (places <= length)
    places = np.clip(places, 0, length - 1)
    low = np.floor(places).astype(np.int64)
    high = np.minimum(low + 1, length - 1)
    weights = np.zeros((bins, length))
    rows = np.arange(bins * ratio) // ratio
    np.add.at(weights, (rows, low), inside * (1 - (places - low)) / ratio)
    np.add.at(weights, (rows, high), inside * (places - low) / ratio)
    return weights


def box_head(crops: Float32Array, weights: Weights) -> tuple[Float32Array, Float32Array]:
    """Return class logits (n, K + 1), background last, and deltas (n, 4 * K) of crops (n, C, bins, bins)."""
    hidden = crops.reshape(len(crops), -1)
    for layer in ("fc6", "fc7"):
        hidden = np.maximum(_linear(hidden, f"roi.box.{layer}", weights), 0)
    return _linear(hidden, "roi.box.scores", weights), _linear(hidden, "roi.box.deltas", weights)


def _linear(x: Float32Array, layer: str, weights: Weights) -> Float32Array:
    result: Float32Array = x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
    return result


def mask_head(crops: Float32Array, labels: Int64Array, weights: Weights) -> Float32Array:
    """Return the masks (n, 2 * bins, 2 * bins) of crops (n, C, bins, bins), each of its own class: probabilities."""
    x = crops
    for index in range(MASK_CONVOLUTIONS):
        x = np.maximum(_convolution(x, f"roi.mask.convs.{index}", weights), 0)
    count, _, height, width = x.shape
    spread = np.einsum("nchw,coij->nohiwj", x, weights["roi.mask.upsample.weight"], optimize=True)
    x = spread.reshape(count, -1, 2 * height, 2 * width) + weights["roi.mask.upsample.bias"][:, None, None]
    own = weights["roi.mask.logits.weight"][labels, :, 0, 0]
    logits = np.einsum("nchw,nc->nhw", np.maximum(x, 0), own) + weights["roi.mask.logits.bias"][labels, None, None]
    masks: Float32Array = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return masks


def _convolution(x: Float32Array, layer: str, weights: Weights) -> Float32Array:
    """Return a 3x3 convolution, padded by 1, of (n, C, H, W)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), axis=(2, 3))
    result: Float32Array = np.einsum("nchwij,ocij->nohw", windows, weights[f"{layer}.weight"], optimize=True)
    return result + weights[f"{layer}.bias"][:, None, None]
