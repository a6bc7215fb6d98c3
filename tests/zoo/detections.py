"""An independent reading of detection: greedy suppression, RoiAlign and the whole post-processing, in plain NumPy loops.

The semantics are torchvision's: each level of the pyramid is cropped by itself, suppression is greedy, nothing has a fixed size.
"""

import math
from typing import Any

import numpy as np

Box = np.ndarray


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes (4,)."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def greedy_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, labels: np.ndarray | None = None) -> list[int]:
    """Return the indices of the boxes (B, 4) that remain, the one with the highest score first."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        rivals = [other for other in kept if labels is None or labels[other] == labels[index]]
        if all(iou(boxes[other], boxes[index]) <= threshold for other in rivals):
            kept.append(index)
    return kept


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the logistic function of `x`."""
    return 1 / (1 + np.exp(-x))


def bilinear(x: np.ndarray, row: float, column: float) -> np.ndarray:
    """Return a map (C, H, W) at a place between pixels (C,): edges are repeated for one pixel, and zero follows."""
    height, width = x.shape[1:]
    if row < -1 or row > height or column < -1 or column > width:
        return np.zeros(len(x))
    row, column = min(max(row, 0.0), height - 1.0), min(max(column, 0.0), width - 1.0)
    top, left = int(row), int(column)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, u = row - top, column - left
    upper = x[:, top, left] * (1 - u) + x[:, top, right] * u
    return upper * (1 - v) + (x[:, below, left] * (1 - u) + x[:, below, right] * u) * v


def roi_align(x: np.ndarray, box: Box, scale: float, bins: int, ratio: int, aligned: bool) -> np.ndarray:
    """Return the crop (C, bins, bins) of one box of a map (C, H, W); a ratio of 0 is the adaptive number of samples."""
    left, top, right, below = box * scale - (0.5 if aligned else 0.0)
    width, height = right - left, below - top
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    rows, columns = ratio or max(1, math.ceil(height / bins)), ratio or max(1, math.ceil(width / bins))
    crop = np.zeros((len(x), bins, bins))
    for i in range(bins):
        for j in range(bins):
            for p in range(rows):
                for q in range(columns):
                    row = top + height / bins * (i + (p + 0.5) / rows)
                    column = left + width / bins * (j + (q + 0.5) / columns)
                    crop[:, i, j] += bilinear(x, row, column) / (rows * columns)
    return crop


def level_of(box: Box, finest_scale: float) -> int:
    """Return the level, counted from P2, that a box is cropped from."""
    side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    return min(max(math.floor(math.log2(max(side, 1e-9) / finest_scale) + 1e-6), 0), 3)


def decode(deltas: np.ndarray, anchor: Box, weights: tuple[float, ...]) -> Box:
    """Return the box (4,) of deltas (4,) from an anchor (4,)."""
    dx, dy, dw, dh = deltas / np.array(weights)
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x, y = anchor[0] + width / 2 + dx * width, anchor[1] + height / 2 + dy * height
    limit = math.log(1000 / 16)
    w, h = width * math.exp(min(dw, limit)), height * math.exp(min(dh, limit))
    return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])


def clip(box: Box, size: tuple[int, int]) -> Box:
    """Return a box within an image of (height, width)."""
    height, width = size
    return np.clip(box, 0, [width, height, width, height])


def large(box: Box, smallest: float) -> bool:
    """Return whether both sides are at least `smallest`."""
    return bool(box[2] - box[0] >= smallest and box[3] - box[1] >= smallest)


def best(scores: np.ndarray, most: int) -> list[int]:
    """Return the indices of the highest scores."""
    found: list[int] = np.argsort(-scores, kind="stable")[:most].tolist()
    return found


def proposals(dense: dict[str, np.ndarray], anchors: list[np.ndarray], size: tuple[int, int], config: Any) -> np.ndarray:
    """Return the proposals (B, 4) of one image from its dense outputs."""
    boxes, scores = [], []
    for name, level in zip(("p2", "p3", "p4", "p5", "p6"), anchors, strict=True):
        logits, deltas = dense[f"objectness_{name}"], dense[f"deltas_{name}"]
        rows = best(logits, config.pre_nms)
        found = [clip(decode(deltas[row], level[row], config.rpn_weights), size) for row in rows]
        taken = [(box, sigmoid(logits[row])) for box, row in zip(found, rows, strict=True) if large(box, config.rpn_min_size)]
        level_boxes, level_scores = np.array([box for box, _ in taken]), np.array([score for _, score in taken])
        kept = greedy_nms(level_boxes, level_scores, config.rpn_nms_threshold)
        boxes.append(level_boxes[kept])
        scores.append(level_scores[kept])
    every = np.concatenate(boxes)
    return every[best(np.concatenate(scores), config.post_nms)]


def crops(dense: dict[str, np.ndarray], boxes: np.ndarray, bins: int, config: Any) -> np.ndarray:
    """Return the crops (B, C, bins, bins) of boxes, each from its own level."""
    made = []
    for box in boxes:
        level = level_of(box, config.roi_finest_scale)
        x = dense[f"p{level + 2}"]
        made.append(roi_align(x, box, 1 / 2 ** (level + 2), bins, config.roi_sampling_ratio, config.roi_aligned))
    return np.array(made, np.float32)


def select(boxes: list[Box], scores: list[float], labels: list[int], config: Any) -> dict[str, np.ndarray]:
    """Return the detections that remain after suppression within each class, the best first."""
    if not boxes:
        return {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, int)}
    every, values, classes = np.array(boxes), np.array(scores), np.array(labels)
    kept = greedy_nms(every, values, config.nms_threshold, classes)[: config.max_detections]
    return {"boxes": every[kept], "scores": values[kept], "labels": classes[kept]}


def box_detections(
    logits: np.ndarray, deltas: np.ndarray, regions: np.ndarray, size: tuple[int, int], config: Any
) -> dict[str, np.ndarray]:
    """Return the detections of one image from the box head's logits (B, K + 1) and deltas (B, 4 * K)."""
    boxes, scores, labels = [], [], []
    for row, region in enumerate(regions):
        powers = np.exp(logits[row] - logits[row].max())
        for label, score in enumerate((powers / powers.sum())[: config.num_classes]):
            box = clip(decode(deltas[row, 4 * label : 4 * label + 4], region, config.box_weights), size)
            if score > config.score_threshold and large(box, config.box_min_size):
                boxes.append(box)
                scores.append(float(score))
                labels.append(label)
    return select(boxes, scores, labels, config)


def retinanet_detections(
    dense: dict[str, np.ndarray], anchors: list[np.ndarray], size: tuple[int, int], config: Any
) -> dict[str, np.ndarray]:
    """Return RetinaNet's detections of one image from its dense outputs."""
    boxes, scores, labels = [], [], []
    for name, level in zip(("p3", "p4", "p5", "p6", "p7"), anchors, strict=True):
        values = sigmoid(dense[f"logits_{name}"]).reshape(-1)
        for place in best(values, config.pre_nms):
            row, label = divmod(place, config.num_classes)
            if values[place] > config.score_threshold:
                boxes.append(clip(decode(dense[f"deltas_{name}"][row], level[row], config.box_weights), size))
                scores.append(float(values[place]))
                labels.append(label)
    return select(boxes, scores, labels, config)
