"""Average precision by COCO's rules from matches, for any weights of the images: the base of the bootstrap of a drop."""

from collections.abc import Callable, Sequence

import numpy as np

from emca_deploy.arrays import Float64Array, Int64Array
from emca_deploy.results.detection import AveragePrecision
from emca_deploy.tasks.object_matches import AREAS, THRESHOLDS, ClassMatches

__all__ = ["RESAMPLES", "class_precision", "drop_interval", "mean_precision", "resampled_precision"]

RESAMPLES = 2000
"""Number of resamples of a bootstrap."""

RECALLS = np.linspace(0.0, 1.0, 101)
"""Recalls at which the precision is averaged."""

MOST_AT_ONCE = 1 << 21
"""Most weights of detections at a time: some 100 MiB with what is made of them."""

EPSILON = np.spacing(1.0)
INTERVAL = (2.5, 97.5)


def class_precision(matches: ClassMatches, weights: Int64Array, area: int = 0) -> Float64Array:
    """Return the average precision of one class, (B, thresholds) float64 from 0 to 1; NaN where no object counts.

    It is that of COCOeval for a data set in which image i occurs weights[b, i] times in a row.

    Args:
        matches: Matches of the class in N images.
        weights: Number of times that each image occurs, (B, N) int64.
        area: Index of the range in `AREAS`.
    """
    found = np.full((len(weights), THRESHOLDS), np.nan)
    step = max(1, MOST_AT_ONCE // max(1, len(matches.image)))
    for start in range(0, len(weights), step):
        some = weights[start : start + step]
        objects = some @ matches.objects[area]
        rows = np.flatnonzero(objects)
        if len(rows):
            found[start + rows] = _precision(matches, some[rows], objects[rows], area)
    return found


def _precision(matches: ClassMatches, weights: Int64Array, objects: Int64Array, area: int) -> Float64Array:
    each = weights[:, matches.image].astype(np.int32)
    before = np.cumsum(each, axis=1, dtype=np.int32)
    found = np.zeros((len(weights), THRESHOLDS))
    for threshold in range(THRESHOLDS):
        ignored = np.flatnonzero(matches.ignored[area, threshold])
        right = np.flatnonzero(matches.matched[area, threshold] & ~matches.ignored[area, threshold])
        if not len(right):
            continue
        # Only a right detection raises the precision or the recall: the curve is needed at these alone.
        counted = before[:, right]
        if len(ignored):
            left_out = np.zeros((len(weights), len(ignored) + 1), np.int32)
            np.cumsum(each[:, ignored], axis=1, out=left_out[:, 1:])
            counted = counted - left_out[:, np.searchsorted(ignored, right)]
        hits = np.cumsum(each[:, right], axis=1, dtype=np.int32)
        precision = hits / (counted + EPSILON)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALLS, (hits / objects[:, None]).ravel(), side="right").reshape(hits.shape)
        found[:, threshold] = (precision * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)
    return found


def mean_precision(matches: Sequence[ClassMatches]) -> tuple[AveragePrecision, tuple[float | None, ...]]:
    """Return the figures over all classes, and the `ap` of every class in percent."""
    once = np.ones((1, matches[0].objects.shape[1]), np.int64)
    by_area = [np.concatenate([class_precision(one, once, area) for one in matches]) for area in range(len(AREAS))]
    figures = [by_area[0], by_area[0][:, :1], by_area[0][:, 5:6], *by_area[1:]]
    return AveragePrecision(*map(_percent, figures)), tuple(_percent(one) for one in by_area[0])


def _percent(values: Float64Array) -> float | None:
    return None if np.isnan(values).all() else 100 * float(np.nanmean(values))


def resampled_precision(
    matches: Sequence[ClassMatches], weights: Int64Array, progress: Callable[[int, int], object] | None = None
) -> Float64Array:
    """Return the mean `ap` over the classes with objects in each resample, (B,) float64 in percent; NaN without any object."""
    total, classes = np.zeros(len(weights)), np.zeros(len(weights))
    for done, one in enumerate(matches, 1):
        found = class_precision(one, weights).mean(axis=1)
        has = ~np.isnan(found)
        total[has] += found[has]
        classes += has
        if progress is not None:
            progress(done, len(matches))
    with np.errstate(invalid="ignore"):
        means: Float64Array = 100 * total / classes
    return means


def drop_interval(
    reference: Sequence[ClassMatches], candidate: Sequence[ClassMatches], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the 95% interval of the drop of `ap` from a reference to a candidate on the same images, in points.

    Images are drawn with replacement, the same for both sides, and the percentiles of the drop are taken: B. Efron, "Bootstrap
    methods: another look at the jackknife" (The Annals of Statistics 7, 1979).

    Args:
        reference: Matches of the reference by class, with at least one object.
        candidate: Matches of the candidate by class, in the same images.
        resamples: Number of resamples.
        seed: Seed of the random numbers.
    """
    images = reference[0].objects.shape[1]
    weights = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    drops = resampled_precision(reference, weights) - resampled_precision(candidate, weights)
    low, high = np.nanpercentile(drops, INTERVAL)
    return float(low), float(high)
