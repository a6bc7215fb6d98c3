"""Detections from dense outputs in numpy, for a host whose accelerator runs only the dense part of a detector.

RetinaNet needs nothing else. Faster R-CNN and Mask R-CNN also need the weights of their box and mask heads, because those heads
read crops of the regions found here. Nothing is shared with the torch modules: this is also the reference that the exported graph
is compared with. Suppression is greedy, and each region is cropped from its own level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array, Float64Array, Int64Array
from emca_deploy.tasks.detection_heads import box_head, mask_head, roi_align
from emca_deploy.tasks.detector_config import LARGEST_LOG, RETINANET_LEVELS, ROI_LEVELS, RPN_LEVELS, DetectorConfig

__all__ = ["HostDetections", "greedy_nms", "rcnn_detections", "retinanet_detections"]

Dense = Mapping[str, Float32Array]
Weights = Mapping[str, Float32Array]
Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class HostDetections:
    """The detections of one image, best first.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the input, (n, 4) float32.
        scores: Scores from 0 to 1, (n,) float32.
        labels: Classes, (n,) int64, 0 for the first one.
        masks: Probabilities on each box, (n, M, M) float32; None without a mask head.
    """

    boxes: Float32Array
    scores: Float32Array
    labels: Int64Array
    masks: Float32Array | None = None


def retinanet_detections(dense: Dense, config: DetectorConfig, image_size: tuple[int, int]) -> list[HostDetections]:
    """Return the detections of each image.

    Args:
        dense: For p3 to p7 `logits_p3` (N, A_l, K) and `deltas_p3` (N, A_l, 4).
        config: Conventions of the detector.
        image_size: Height and width of the network's input in pixels.
    """
    count = len(dense["logits_p3"])
    return [_of_retinanet({name: values[index] for name, values in dense.items()}, config, image_size) for index in range(count)]


def _of_retinanet(dense: Dense, config: DetectorConfig, image_size: tuple[int, int]) -> HostDetections:
    found = []
    for level, name in enumerate(RETINANET_LEVELS):
        logits = dense[f"logits_{name}"].ravel()
        best = _best(logits, config.pre_nms)
        anchors = _anchors(level, 8 << level, image_size, config)[best // config.num_classes]
        boxes = _decode(dense[f"deltas_{name}"][best // config.num_classes], anchors, config.box_weights, config)
        found.append((_clip(boxes, image_size, config), _sigmoid(logits[best]), best % config.num_classes))
    boxes, scores, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _select(boxes, scores, labels, config)


def rcnn_detections(dense: Dense, weights: Weights, config: DetectorConfig, image_size: tuple[int, int]) -> list[HostDetections]:
    """Return the detections of each image, with masks where `weights` has a mask head.

    The heads take seconds an image in numpy.

    Args:
        dense: Levels `p2` to `p5` (N, C, H_l, W_l), and for p2 to p6 `objectness_p2` (N, A_l) and `deltas_p2` (N, A_l, 4).
        weights: Tensors of the detector's `roi.box` and `roi.mask`, by name in its state dict.
        config: Conventions of the detector.
        image_size: Height and width of the network's input in pixels.
    """
    count = len(dense["p2"])
    return [_of_rcnn({name: array[at] for name, array in dense.items()}, weights, config, image_size) for at in range(count)]


def _of_rcnn(dense: Dense, weights: Weights, config: DetectorConfig, image_size: tuple[int, int]) -> HostDetections:
    proposals = _proposals(dense, config, image_size)
    crops = _crops(dense, proposals, config.box_bins, config)
    logits, deltas = box_head(crops, weights)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (odds / odds.sum(axis=1, keepdims=True))[:, :-1].ravel()
    best = _best(probabilities, config.post_nms)
    rows, labels = best // config.num_classes, best % config.num_classes
    chosen = deltas.reshape(len(proposals), config.num_classes, 4)[rows, labels]
    boxes = _clip(_decode(chosen, proposals[rows], config.box_weights, config), image_size, config)
    found = _select(boxes, probabilities[best], labels, config)
    if "roi.mask.logits.weight" not in weights:
        return found
    masks = mask_head(_crops(dense, found.boxes, config.mask_bins, config), found.labels, weights)
    return HostDetections(found.boxes, found.scores, found.labels, masks)


def _proposals(dense: Dense, config: DetectorConfig, image_size: tuple[int, int]) -> Float64Array:
    """Return the boxes (n, 4) of one image that the box head looks at, best first."""
    boxes_of, scores_of = [], []
    for level, name in enumerate(RPN_LEVELS):
        logits = dense[f"objectness_{name}"]
        best = _best(logits, config.pre_nms)
        anchors = _anchors(level, 4 << level, image_size, config)[best]
        boxes = _clip(_decode(dense[f"deltas_{name}"][best], anchors, config.rpn_weights, config), image_size, config)
        large = _large(boxes, config.rpn_min_size)
        boxes, scores = boxes[large], _sigmoid(logits[best])[large]
        kept = greedy_nms(boxes, scores, config.rpn_nms_threshold, one=float(config.plus_one))
        boxes_of.append(boxes[kept])
        scores_of.append(scores[kept])
    boxes, scores = np.concatenate(boxes_of), np.concatenate(scores_of)
    return boxes[_best(scores, config.post_nms)]


def _select(boxes: Array, scores: Array, labels: Int64Array, config: DetectorConfig) -> HostDetections:
    """Return the best detections of one image, after suppression within each class."""
    first = _best(scores, config.post_nms)
    boxes, scores, labels = boxes[first], scores[first], labels[first]
    valid = (scores > config.score_threshold) & _large(boxes, config.box_min_size)
    boxes, scores, labels = boxes[valid], scores[valid], labels[valid]
    kept = greedy_nms(boxes, scores, config.nms_threshold, labels, float(config.plus_one))[: config.max_detections]
    return HostDetections(boxes[kept].astype(np.float32), scores[kept].astype(np.float32), labels[kept])


def greedy_nms(boxes: Array, scores: Array, threshold: float, labels: Int64Array | None = None, one: float = 0.0) -> Int64Array:
    """Return the boxes that remain, best first, (kept,) int64: each one removes those that overlap it by more than `threshold`.

    Args:
        boxes: Boxes (n, 4) as x1, y1, x2, y2.
        scores: Scores (n,).
        threshold: Intersection over union above which the lower score is removed.
        labels: Classes (n,); boxes of different classes do not remove one another. None for one class.
        one: 1 where a box reaches to the end of its last pixel, else 0.
    """
    remaining = _best(scores, len(scores))
    wide = boxes.astype(np.float64)
    areas = np.prod(wide[:, 2:] - wide[:, :2] + one, axis=1)
    kept = []
    while len(remaining):
        first, remaining = remaining[0], remaining[1:]
        kept.append(first)
        sides = np.minimum(wide[first, 2:], wide[remaining, 2:]) - np.maximum(wide[first, :2], wide[remaining, :2]) + one
        shared = np.prod(np.maximum(sides, 0), axis=1)
        removed = shared > threshold * (areas[first] + areas[remaining] - shared)
        if labels is not None:
            removed &= labels[remaining] == labels[first]
        remaining = remaining[~removed]
    return np.array(kept, np.int64)


def _best(scores: Array, most: int) -> Int64Array:
    """Return the places of the highest scores, best first; the first of equal ones comes first."""
    return np.argsort(-scores, kind="stable")[:most]


def _sigmoid(logits: Float32Array) -> Float64Array:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def _large(boxes: Array, smallest: float) -> npt.NDArray[np.bool_]:
    large: npt.NDArray[np.bool_] = np.all(boxes[:, 2:] - boxes[:, :2] >= smallest, axis=1)
    return large


def _clip(boxes: Float64Array, image_size: tuple[int, int], config: DetectorConfig) -> Float64Array:
    ends = np.array([image_size[1], image_size[0]] * 2, np.float64) - float(config.plus_one)
    return np.clip(boxes, 0, ends)


def _decode(deltas: Array, anchors: Array, factors: Sequence[float], config: DetectorConfig) -> Float64Array:
    """Return boxes (n, 4) from deltas (n, 4) relative to anchors (n, 4). Source: Ren et al., 2015, section 3.1.2."""
    one = float(config.plus_one)
    moves = deltas.astype(np.float64) / np.array(factors)
    start, sides = anchors[:, :2].astype(np.float64), (anchors[:, 2:] - anchors[:, :2]).astype(np.float64) + one
    centres = start + (sides - one) / 2 + moves[:, :2] * sides
    halves = (sides * np.exp(np.minimum(moves[:, 2:], LARGEST_LOG)) - one) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def _anchors(level: int, stride: int, image_size: tuple[int, int], config: DetectorConfig) -> Float64Array:
    """Return the anchors (H * W * A, 4) of a level, row by row, and at each place ratio by ratio."""
    height, width = (-(-side // stride) for side in image_size)
    corners = []
    for ratio in config.anchor_ratios:
        for size in config.anchor_sizes[level]:
            half = np.array([size / ratio**0.5, size * ratio**0.5]) / 2
            corners.append(_corners(half, stride, config))
    nominal = config.anchor_strides == "nominal"
    step_y, step_x = (stride, stride) if nominal else (image_size[0] // height, image_size[1] // width)
    moves = np.array([[x * step_x, y * step_y] * 2 for y in range(height) for x in range(width)], np.float64)
    anchors: Float64Array = (moves[:, None] + np.array(corners)).reshape(-1, 4)
    return anchors


def _corners(half: Float64Array, stride: int, config: DetectorConfig) -> Float64Array:
    """Return the anchor (4,) at the first place of a level from half its width and height."""
    if config.anchor_rounding == "legacy":
        middle = (stride - 1) / 2
        return np.round(np.concatenate([middle - (half - 0.5), middle + (half - 0.5)]))
    around: Float64Array = np.concatenate([-half, half])
    return (np.round(around) if config.anchor_rounding == "nearest" else around) + config.anchor_centre * stride


def _crops(dense: Dense, boxes: Array, bins: int, config: DetectorConfig) -> Float32Array:
    """Return the crops (n, C, bins, bins) of boxes (n, 4), each from the level of its size (Lin et al., 2017, equation 1)."""
    one, reach = float(config.plus_one), float(config.plus_one and config.roi_plus_one)
    sides = np.sqrt(np.prod(boxes[:, 2:].astype(np.float64) - boxes[:, :2] + one, axis=1))
    with np.errstate(divide="ignore"):
        levels = np.clip(np.floor(np.log2(sides / config.roi_finest_scale) + 1e-6), 0, ROI_LEVELS - 1).astype(np.int64)
    crops = np.zeros((len(boxes), dense["p2"].shape[0], bins, bins), np.float32)
    for row, (level, box) in enumerate(zip(levels.tolist(), boxes.astype(np.float64), strict=True)):
        on_level = (box + np.array([0, 0, reach, reach])) / (4 << level)
        crops[row] = roi_align(dense[RPN_LEVELS[level]], on_level, bins, config.roi_sampling_ratio, config.roi_aligned)
    return crops
