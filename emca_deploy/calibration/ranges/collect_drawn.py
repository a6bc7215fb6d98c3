"""Observing the tensors of drawn images, in the one pass over the images that are looked at."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emca_deploy._progress import Progress
from emca_deploy.arrays import Float64Array
from emca_deploy.calibration.ranges.collect import Digest, TensorPass, ends_of, observe
from emca_deploy.calibration.ranges.drawing import AT_ONCE, ENOUGH_DB, LEAST, STEP, Drawer, Images
from emca_deploy.calibration.ranges.methods.base import Method
from emca_deploy.calibration.ranges.observers import Observation
from emca_deploy.data.sources import ImageSource
from emca_deploy.results.drawing import Drawing

__all__ = ["collect_drawn"]


@dataclass(frozen=True)
class _Run:
    """One run of the pass: its images, the digest of each tensor, and what the passenger took of each image."""

    members: Sequence[int]
    digests: Sequence[Digest | ValueError]
    taken: Sequence[Any]

    def extremes(self) -> Float64Array:
        """Return the smallest and largest value of each tensor, (tensors, 2); NaN where a value is not finite."""
        return np.array([ends_of(digest) for digest in self.digests], np.float64)


def collect_drawn(
    work: TensorPass,
    method: Method,
    source: ImageSource,
    images: Images,
    clipped_db: Callable[[Float64Array], float],
    progress: Progress | None = None,
) -> tuple[dict[str, Observation], Drawing]:
    """Return the observations of a pass's tensors over drawn images, and how these were drawn.

    `clipped_db` returns the decibels that the left-out images lose by clipping to the smallest and largest value of each tensor,
    (tensors, 2). `progress` is called with (images looked at, most images to look at). The pass's passenger gets all of them.

    Raises:
        ModelError: the model cannot run these images.
        DataError: an activation is infinite or not a number; the error names the tensor and the image.
    """
    observers = {name: method.observer() for name in work.names}
    drawer, looked_at, used, most, test = Drawer(), 0, 0, len(images.looked_at), LEAST
    clipped: float | None = None
    for group in _groups(work, source, images.looked_at):
        extremes = np.stack([run.extremes() for run in group])
        for position in [*np.flatnonzero(~np.isfinite(extremes).all(axis=(1, 2))), *drawer.draw(extremes)]:
            run = group[position]
            observe(observers, run.digests, source, run.members)  # raises an error for what is not finite
            used += len(run.members)
        if work.passenger is not None:
            for each in (each for run in group for each in run.taken):
                work.passenger.add(each)
        looked_at += sum(len(run.members) for run in group)
        if progress:
            progress(looked_at, most)
        if looked_at >= test and most - looked_at >= STEP:
            clipped, test = clipped_db(drawer.ends), looked_at + STEP
            if clipped <= ENOUGH_DB:
                break
    found = {name: replace(observer.observation(), trial=None) for name, observer in observers.items()}
    if looked_at < most:
        return found, Drawing(looked_at, used, len(images.left_out), "enough", clipped)
    return found, Drawing(looked_at, used, len(images.left_out), "no more images")


def _groups(work: TensorPass, source: ImageSource, indices: Sequence[int]) -> Iterator[list[_Run]]:
    """Yield the runs of at least `AT_ONCE` images at a time."""
    group: list[_Run] = []
    done = 0
    for digests, taken in work.digests(source, indices):
        group.append(_Run(indices[done : done + len(taken)], digests, taken))
        done += len(taken)
        if sum(len(run.members) for run in group) >= AT_ONCE:
            yield group
            group = []
    if group:
        yield group
