"""Matches of detections with annotated objects by COCO's rules, one image at a time, with the matching of pycocotools."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from emca_deploy._optional import import_optional
from emca_deploy.arrays import Float64Array, Int64Array
from emca_deploy.data.coco import CocoAnnotations
from emca_deploy.data.coco_entries import RunLengths
from emca_deploy.tasks.detections import Detections

__all__ = ["AREAS", "MOST_PER_IMAGE", "THRESHOLDS", "ClassMatches", "Matched", "match_objects"]

MOST_PER_IMAGE = 100
"""Most detections of an image that count, as in COCO's figures."""

THRESHOLDS = 10
"""Number of IoU thresholds: 0.5, 0.55, ..., 0.95."""

AREAS = ("all", "small", "medium", "large")
"""COCO's ranges of an object's area: any, below 32^2, from 32^2 to 96^2, and above, in square pixels."""

BoolArray = npt.NDArray[np.bool_]
Matched = Literal["box", "mask"]


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class in all N images, by falling score; those with equal scores are in the order of the images.

    Attributes:
        image: Index of the image of each detection, (D,) int64.
        matched: Whether an object matches the detection, (areas, thresholds, D) bool.
        ignored: Whether the detection is neither right nor wrong, (areas, thresholds, D) bool.
        objects: Number of objects in each image that can be missed, (areas, N) int64.
    """

    image: Int64Array
    matched: BoolArray
    ignored: BoolArray
    objects: Int64Array


def match_objects(
    annotations: CocoAnnotations, labels: Int64Array, detections: Detections, kind: Matched, progress: Any = None
) -> tuple[ClassMatches, ...]:
    """Return the matches of every category, in the order of the categories.

    Args:
        annotations: Annotations of N images.
        labels: Output of the network for each category, (categories,) int64; -1 for none.
        detections: Detections of the same images.
        kind: Whether boxes or masks are compared; masks need those of both sides.
        progress: Called with (images done, images in total).

    Raises:
        MissingError: pycocotools is not installed.
    """
    collected = [_Collected() for _ in annotations.categories]
    images = _Images(annotations, detections, kind)
    category_of = {int(label): index for index, label in enumerate(labels) if label >= 0}
    objects = np.zeros((len(collected), len(AREAS), len(annotations)), np.int64)
    for image in range(len(annotations)):
        for category, found in images.matches(image, category_of).items():
            collected[category].add(image, found)
            objects[category, :, image] = found.objects
        if progress is not None:
            progress(image + 1, len(annotations))
    return tuple(one.finish(objects[index]) for index, one in enumerate(collected))


@dataclass(frozen=True)
class _Found:
    """The matches of one class in one image: (D,), (areas, thresholds, D) twice, and (areas,)."""

    scores: Float64Array
    matched: BoolArray
    ignored: BoolArray
    objects: Int64Array


@dataclass
class _Collected:
    """The matches of one class in the images so far."""

    images: list[Int64Array] = field(default_factory=list)
    found: list[_Found] = field(default_factory=list)

    def add(self, image: int, found: _Found) -> None:
        self.images.append(np.full(len(found.scores), image, np.int64))
        self.found.append(found)

    def finish(self, objects: Int64Array) -> ClassMatches:
        empty = np.zeros((len(AREAS), THRESHOLDS, 0), np.bool_)
        scores = np.concatenate([np.zeros(0), *(one.scores for one in self.found)])
        order = np.argsort(-scores, kind="stable")
        image = np.concatenate([np.zeros(0, np.int64), *self.images])[order]
        matched = np.concatenate([empty, *(one.matched for one in self.found)], axis=2)[..., order]
        ignored = np.concatenate([empty, *(one.ignored for one in self.found)], axis=2)[..., order]
        return ClassMatches(image, matched, ignored, objects)


class _Images:
    """Matches the detections of one image after the other."""

    def __init__(self, annotations: CocoAnnotations, detections: Detections, kind: Matched) -> None:
        self._evaluator = import_optional("pycocotools.cocoeval").COCOeval(iouType="bbox" if kind == "box" else "segm")
        self._masks = import_optional("pycocotools.mask") if kind == "mask" else None
        self._ranges = np.array(self._evaluator.params.areaRng)
        self._annotations, self._detections = annotations, detections
        self._rows = list(detections.rows())
        self._texts = detections.mask_texts() if kind == "mask" else []
        order = np.argsort(annotations.image, kind="stable")
        self._objects = np.split(order, np.cumsum(np.bincount(annotations.image, minlength=len(annotations)))[:-1])

    def matches(self, image: int, category_of: dict[int, int]) -> dict[int, _Found]:
        """Return the matches of an image by category."""
        by_category: dict[int, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
        for index in self._objects[image].tolist():
            by_category.setdefault(int(self._annotations.category[index]), ([], []))[0].append(self._object(index, image))
        for index in self._best(image):
            category = category_of.get(int(self._detections.labels[index]))
            if category is not None:
                by_category.setdefault(category, ([], []))[1].append(self._detection(index, image))
        return {category: self._match(*both) for category, both in by_category.items()}

    def _best(self, image: int) -> list[int]:
        rows = self._rows[image]
        order = np.argsort(-self._detections.scores[rows], kind="stable")[:MOST_PER_IMAGE]
        return [rows.start + int(place) for place in order]

    def _object(self, index: int, image: int) -> dict[str, Any]:
        one = self._annotations
        crowd = int(one.crowd[index])
        # An object whose id is 0 would count as missed: pycocotools marks a missing match with 0.
        found = {"id": index + 1, "area": float(one.areas[index]), "iscrowd": crowd, "ignore": crowd}
        found["bbox"] = one.boxes[index].tolist()
        return found if self._masks is None else {**found, "segmentation": self._mask_of(index, image)}

    def _mask_of(self, index: int, image: int) -> dict[str, Any]:
        assert self._masks is not None
        mask, size = self._annotations.masks[index], self._annotations.sizes[image].tolist()
        if isinstance(mask, RunLengths):
            return {"size": size, "counts": mask.text}
        whole: dict[str, Any] = self._masks.merge(self._masks.frPyObjects(mask, *size))
        return whole

    def _detection(self, index: int, image: int) -> dict[str, Any]:
        x1, y1, x2, y2 = self._detections.boxes[index].astype(np.float64).tolist()
        found = {"id": index + 1, "score": float(self._detections.scores[index]), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        if self._masks is None:
            return {**found, "area": (x2 - x1) * (y2 - y1)}
        mask = {"size": self._annotations.sizes[image].tolist(), "counts": self._texts[index]}
        return {**found, "segmentation": mask, "area": float(self._masks.area(mask))}

    def _match(self, objects: list[dict[str, Any]], detections: list[dict[str, Any]]) -> _Found:
        count = (~self._outside(objects) & ~np.array([one["iscrowd"] for one in objects], np.bool_)).sum(axis=1)
        scores = np.array([one["score"] for one in detections], np.float64)
        if not objects:
            ignored = np.repeat(self._outside(detections)[:, None], THRESHOLDS, axis=1)
            return _Found(scores, np.zeros_like(ignored), ignored, count)
        evaluator = self._evaluator
        evaluator._gts[0, 0], evaluator._dts[0, 0] = objects, detections
        evaluator.ious = {(0, 0): evaluator.computeIoU(0, 0)}
        found = [evaluator.evaluateImg(0, 0, area, MOST_PER_IMAGE) for area in self._ranges.tolist()]
        matched = np.array([one["dtMatches"] > 0 for one in found]).reshape(len(AREAS), THRESHOLDS, -1)
        ignored = np.array([one["dtIgnore"] > 0 for one in found]).reshape(matched.shape)
        return _Found(scores, matched, ignored, count)

    def _outside(self, things: list[dict[str, Any]]) -> BoolArray:
        """Return whether the area of each thing is outside each range, (areas, things) bool."""
        areas = np.array([one["area"] for one in things], np.float64)
        outside: BoolArray = (areas < self._ranges[:, :1]) | (areas > self._ranges[:, 1:])
        return outside
