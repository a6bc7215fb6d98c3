"""Average precision by COCO's rules from matches, for any weights of the images: the base of the bootstrap of a drop."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from emca_deploy._machine import default_threads
from emca_deploy.arrays import Float64Array, Int64Array
from emca_deploy.results.detection import AveragePrecision
from emca_deploy.tasks.object_matches import AREAS, THRESHOLDS, ClassMatches

__all__ = ["RESAMPLES", "bootstrap", "class_precision", "drop_interval", "mean_precision", "resampled_precision"]

RESAMPLES = 2000
"""Number of resamples of a bootstrap."""

RECALLS = np.linspace(0.0, 1.0, 101)
"""Recalls at which the precision is averaged."""

MOST_AT_ONCE = 1 << 17
"""Most weights of detections at a time: they, and what is made of them, fit a processor's cache."""

Int32Array = npt.NDArray[np.int32]
Counts = Int32Array | Int64Array

EPSILON = np.spacing(1.0)
INTERVAL = (2.5, 97.5)


def class_precision(matches: ClassMatches, weights: Counts, area: int = 0) -> Float64Array:
    """Return the average precision of one class, (B, thresholds) float64 from 0 to 1; NaN where no object counts.

    It is that of COCOeval for a data set in which image i occurs weights[b, i] times in a row.

    Args:
        matches: Matches of the class in N images.
        weights: Number of times that each image occurs, (B, N) int32 or int64.
        area: Index of the range in `AREAS`.
    """
    found = np.full((len(weights), THRESHOLDS), np.nan)
    step = max(1, MOST_AT_ONCE // max(1, len(matches.image)))
    with_objects = np.flatnonzero(matches.objects[area])
    ignored = [np.flatnonzero(one) for one in matches.ignored[area]]
    right = [np.flatnonzero(one) for one in matches.matched[area] & ~matches.ignored[area]]
    for start in range(0, len(weights), step):
        some = weights[start : start + step].astype(np.int32, copy=False)
        objects = np.take(some, with_objects, axis=1) @ matches.objects[area][with_objects]
        rows = np.flatnonzero(objects)
        if len(rows):
            found[start + rows] = _precision(matches.image, right, ignored, some[rows], objects[rows])
    return found


def _precision(
    image: Int64Array, all_right: list[Int64Array], all_ignored: list[Int64Array], weights: Int32Array, objects: Int64Array
) -> Float64Array:
    """Return the average precision from the indices of right and ignored detections at each threshold."""
    each = np.take(weights, image, axis=1)
    before = np.cumsum(each, axis=1, dtype=np.int32)
    reached = _Reached(objects)
    found = np.zeros((len(weights), THRESHOLDS))
    for threshold, (right, ignored) in enumerate(zip(all_right, all_ignored, strict=True)):
        if not len(right):
            continue
        # Only a right detection raises the precision or the recall: the curve is needed at these alone.
        counted = np.take(before, right, axis=1)
        if len(ignored):
            left_out = np.zeros((len(weights), len(ignored) + 1), np.int32)
            np.cumsum(np.take(each, ignored, axis=1), axis=1, out=left_out[:, 1:])
            counted -= np.take(left_out, np.searchsorted(ignored, right), axis=1)
        hits = np.cumsum(np.take(each, right, axis=1), axis=1, dtype=np.int32)
        precision = hits / (counted + EPSILON)
        np.maximum.accumulate(precision[:, ::-1], axis=1, out=precision[:, ::-1])
        found[:, threshold] = np.einsum("ij,ij->i", precision, reached.steps(hits)) / len(RECALLS)
    return found


class _Reached:
    """The number of recalls in `RECALLS` that any number of hits reaches, for several numbers of objects (B,)."""

    def __init__(self, objects: Int64Array) -> None:
        distinct, row = np.unique(objects, return_inverse=True)
        width = int(distinct[-1]) + 1
        recalls = np.arange(width) / distinct[:, None]
        self._table = np.searchsorted(RECALLS, recalls.ravel(), side="right").astype(np.int16)
        self._start = (row * width)[:, None]

    def steps(self, hits: Int32Array) -> npt.NDArray[np.int16]:
        """Return how many more recalls are reached by each hit than by the one before; `hits` (B, R) do not fall along a row."""
        reached = np.zeros((hits.shape[0], hits.shape[1] + 1), np.int16)
        np.take(self._table, hits + self._start, out=reached[:, 1:])
        return np.diff(reached, axis=1)


def mean_precision(matches: Sequence[ClassMatches]) -> tuple[AveragePrecision, tuple[float | None, ...]]:
    """Return the figures over all classes, and the `ap` of every class in percent."""
    once = np.ones((1, matches[0].objects.shape[1]), np.int64)
    by_area = [np.concatenate([class_precision(one, once, area) for one in matches]) for area in range(len(AREAS))]
    figures = [by_area[0], by_area[0][:, :1], by_area[0][:, 5:6], *by_area[1:]]
    return AveragePrecision(*map(_percent, figures)), tuple(_percent(one) for one in by_area[0])


def _percent(values: Float64Array) -> float | None:
    return None if np.isnan(values).all() else 100 * float(np.nanmean(values))


def resampled_precision(
    matches: Sequence[ClassMatches], weights: Counts, progress: Callable[[int, int], object] | None = None
) -> Float64Array:
    """Return the mean `ap` over the classes with objects in each resample, (B,) float64 in percent; NaN without any object."""
    total, classes = np.zeros(len(weights)), np.zeros(len(weights))
    with ThreadPoolExecutor(default_threads()) as pool:  # numpy leaves the lock of Python
        for done, each in enumerate(pool.map(lambda one: class_precision(one, weights), matches), 1):
            found = each.mean(axis=1)
            has = ~np.isnan(found)
            total[has] += found[has]
            classes += has
            if progress is not None:
                progress(done, len(matches))
    with np.errstate(invalid="ignore"):
        means: Float64Array = 100 * total / classes
    return means


def bootstrap(matches: Sequence[ClassMatches], resamples: int = RESAMPLES, seed: int = 0) -> Float64Array:
    """Return the mean `ap` in resamples of the images, (resamples,) float64 in percent.

    Images are drawn with replacement. The draws depend on the number of images and the seed only, so models are resampled alike.

    Args:
        matches: Matches by class, with at least one object.
        resamples: Number of resamples.
        seed: Seed of the random numbers.
    """
    images = matches[0].objects.shape[1]
    weights = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.int32)
    return resampled_precision(matches, weights)


def drop_interval(reference: Float64Array, candidate: Float64Array) -> tuple[float, float]:
    """Return the 95% interval of the drop of `ap` from a reference to a candidate, in points, from the resamples of both.

    It is between percentiles of the drop: B. Efron, "Bootstrap methods: another look at the jackknife" (The Annals of Statistics
    7, 1979).
    """
    low, high = np.nanpercentile(reference - candidate, INTERVAL)
    return float(low), float(high)
