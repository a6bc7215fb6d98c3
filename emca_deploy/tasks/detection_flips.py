"""Detections that only one of two models has, and the share that both have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array, Int64Array
from emca_deploy.data.coco import CocoAnnotations
from emca_deploy.results.detection import DetectionFlip, DetectionFlips
from emca_deploy.tasks.detections import Detections, box_iou
from emca_deploy.tasks.flips import encodable

__all__ = ["LEAST_IOU", "LEAST_SCORE", "Compared", "compare_detections", "flip_rows"]

LEAST_SCORE = 0.3
"""Lowest score of a detection that is looked for in the other model; its match may have any score."""

LEAST_IOU = 0.5
"""Lowest intersection over union of two boxes that match."""


@dataclass(frozen=True)
class Compared:
    """Two models' detections, compared.

    Attributes:
        compared: Number of the reference's detections with at least `LEAST_SCORE`.
        agreement: Percent of these with a match in the candidate; None where there are none.
        flips: Lost and gained detections.
    """

    compared: int
    agreement: float | None
    flips: DetectionFlips


@dataclass(frozen=True)
class _Objects:
    """The annotated objects of each image that are no crowds: boxes (n, 4) x1, y1, x2, y2 and labels (n,)."""

    boxes: list[npt.NDArray[np.float64]]
    labels: list[Int64Array]

    @classmethod
    def of(cls, annotations: CocoAnnotations, labels: Int64Array) -> "_Objects":
        rows = np.flatnonzero(~annotations.crowd)
        rows = rows[np.argsort(annotations.image[rows], kind="stable")]
        corners = annotations.boxes[rows].copy()
        corners[:, 2:] += corners[:, :2]
        ends = np.cumsum(np.bincount(annotations.image[rows], minlength=len(annotations)))[:-1]
        return cls(np.split(corners, ends), np.split(labels[annotations.category[rows]], ends))


def compare_detections(
    candidate: Detections,
    reference: Detections,
    files: tuple[str, ...],
    annotations: CocoAnnotations | None = None,
    labels: Int64Array | None = None,
    indices: Sequence[int] | None = None,
) -> Compared:
    """Match the detections of two models on the same images, by falling score, each with the best box of its class.

    Args:
        candidate: Detections of the candidate.
        reference: Detections of the reference, in the same images.
        files: Name of each image.
        annotations: Annotations of the images; None where there are none.
        labels: Output of the network for each category, (categories,) int64; None without annotations.
        indices: Index of each image in its data set; None where all images were measured.
    """
    objects = None if annotations is None or labels is None else _Objects.of(annotations, labels)
    flips: list[DetectionFlip] = []
    compared = 0
    images = set()
    for image, (own, theirs) in enumerate(zip(candidate.rows(), reference.rows(), strict=True)):
        lost = _without_match(reference, theirs, candidate, own)
        gained = _without_match(candidate, own, reference, theirs)
        compared += int((reference.scores[theirs] >= LEAST_SCORE).sum())
        place = image if indices is None else indices[image]
        found = [_flip("lost", reference, row, image, files[image], objects) for row in lost]
        found += [_flip("gained", candidate, row, image, files[image], objects) for row in gained]
        flips += [replace(flip, index=place) for flip in found]
        if len(lost) or len(gained):
            images.add(image)
    lost_count = sum(flip.kind == "lost" for flip in flips)
    rights = {kind: sum(bool(flip.right) for flip in flips if flip.kind == kind) for kind in ("lost", "gained")}
    known = objects is not None
    return Compared(
        compared=compared,
        agreement=100 * (1 - lost_count / compared) if compared else None,
        flips=DetectionFlips(
            lost=lost_count,
            gained=len(flips) - lost_count,
            lost_right=rights["lost"] if known else None,
            gained_right=rights["gained"] if known else None,
            images=len(images),
            detections=tuple(flips),
        ),
    )


def _without_match(side: Detections, rows: slice, other: Detections, theirs: slice) -> list[int]:
    """Return the detections of one image and side, with at least `LEAST_SCORE`, that the other side does not have."""
    wanted = rows.start + np.flatnonzero(side.scores[rows] >= LEAST_SCORE)
    iou = box_iou(side.boxes[wanted], other.boxes[theirs])
    iou[side.labels[wanted][:, None] != other.labels[theirs][None]] = 0
    missing = []
    for place, row in enumerate(wanted.tolist()):
        best = int(iou[place].argmax()) if iou.shape[1] else -1
        if best < 0 or iou[place, best] < LEAST_IOU:
            missing.append(row)
        else:
            iou[:, best] = 0
    return missing


def _flip(
    kind: Literal["lost", "gained"], side: Detections, row: int, image: int, file: str, objects: _Objects | None
) -> DetectionFlip:
    box: Float32Array = side.boxes[row]
    label = int(side.labels[row])
    right = None
    if objects is not None:
        same = objects.boxes[image][objects.labels[image] == label]
        right = bool((box_iou(box[None], same) >= LEAST_IOU).any())
    corners = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
    return DetectionFlip(image, file, kind, label, float(side.scores[row]), corners, right)


def flip_rows(flips: DetectionFlips, names: Mapping[int, str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the headings and rows of a file of lost and gained detections; `names` has the class of each output, if known."""
    heads = ["index", "file", "kind", "label", "label_name", "score", "x1", "y1", "x2", "y2", "right"]
    rows = []
    for flip in flips.detections:
        corners = dict(zip(("x1", "y1", "x2", "y2"), flip.box, strict=True))
        named = {"file": encodable(flip.file), "label_name": encodable(names.get(flip.label, ""))}
        values = {name: getattr(flip, name) for name in ("index", "kind", "label", "score", "right")}
        both = {**values, **named, **corners}
        rows.append({name: both[name] for name in heads})
    return heads, rows
