"""Drawing calibration images by coverage of ranges, until more of them would hardly change the logits.

Of every few images that the model runs on, the half is drawn whose tensors reach farthest from those of the images drawn before
("farthest first", Gonzalez 1985), by the smallest and largest value of each tensor. Some images are left out of all ranges. What
their logits lose by clipping is what wider ranges, from more images, could gain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float64Array
from emca_deploy.data.sources import ImageSource, choose_indices, images_in_order
from emca_deploy.errors import InputError
from emca_deploy.results.drawing import Drawing

__all__ = [
    "AT_ONCE",
    "AUTO",
    "ENOUGH_DB",
    "LEAST",
    "MOST",
    "SMALLEST",
    "STEP",
    "Drawer",
    "Images",
    "Samples",
    "possible_images",
]

Samples = int | Literal["auto"]
"""Number of calibration images, or `AUTO`."""

AUTO: Literal["auto"] = "auto"
"""Number of calibration images that is found while they are looked at."""

MOST = 300
"""Most images that `AUTO` uses for anything, the left-out ones included."""

LEFT_OUT = 4
"""One of this number of images is left out of the ranges: 75 of 300."""

LEAST = 100
"""Images that are looked at before the first test: biases need the means of 100 images."""

STEP = 50
"""Images that are looked at between two tests, and fewest left at a test: a test takes about as long as looking at 30 images."""

SMALLEST = 200
"""Smallest data set whose images are drawn; with fewer, all images are looked at before the first test."""

AT_ONCE = 10
"""Images of which half are drawn; their histograms, up to 7 MiB an image, are in memory at once."""

ENOUGH_DB = 0.2
"""Most decibels of SQNR that clipping may cost the left-out images. Random draws of equally many images differ by more."""


@dataclass(frozen=True)
class Images:
    """Indices of the images that a calibration may use, in the order in which they are looked at.

    Attributes:
        left_out: Other images, which no range comes from.
        drawn: Whether ranges come from drawn images; False where they come from all.
    """

    looked_at: Sequence[int]
    left_out: Sequence[int] = ()
    drawn: bool = False

    @classmethod
    def of(cls, source: ImageSource, samples: Samples, seed: int) -> "Images":
        """Return the images for a number, or for `AUTO`, which takes all of a small data set.

        Raises:
            InputError: `samples` is neither a number from 1 nor `AUTO`.
        """
        if samples != AUTO:
            return cls(possible_images(source, samples, seed))
        if len(source) < SMALLEST:
            return cls(range(len(source)))
        order = images_in_order(len(source), source.labels, seed)[:MOST]
        looked_at = len(order) - len(order) // LEFT_OUT
        return cls(order[:looked_at], order[looked_at:], drawn=True)

    def first(self, drawing: Drawing | None) -> Sequence[int]:
        """Return the images that a finished drawing looked at; all where there was none."""
        return self.looked_at if drawing is None else self.looked_at[: drawing.looked_at]


def possible_images(source: ImageSource, samples: Samples, seed: int = 0) -> list[int]:
    """Return the images that a calibration may use for anything, in rising order.

    Raises:
        InputError: `samples` is neither a number from 1 nor `AUTO`.
    """
    if isinstance(samples, str):
        if samples != AUTO:
            raise InputError(f"{samples} is no number of calibration images", "give a number, or auto")
        samples = MOST
    return choose_indices(len(source), samples, source.labels, seed)


class Drawer:
    """The images drawn so far, and which of others to draw next.

    The distance of two images is the largest difference of an end of a tensor's range, as a share of the width of that tensor's
    range over all images seen. It is that of single tensors: many small differences do not add up to a large one.
    """

    def __init__(self) -> None:
        self._drawn: list[Float64Array] = []
        self._lowest: Float64Array | None = None
        self._highest: Float64Array | None = None

    @property
    def ends(self) -> Float64Array:
        """The smallest and largest value of each tensor over the drawn images, (tensors, 2)."""
        drawn = np.stack(self._drawn)
        return np.stack([drawn[:, :, 0].min(axis=0), drawn[:, :, 1].max(axis=0)], axis=1)

    def __len__(self) -> int:
        return len(self._drawn)

    def draw(self, extremes: Float64Array) -> list[int]:
        """Draw half of some images, rounded up, from the smallest and largest value of each tensor, (N, tensors, 2) float64.

        Returns:
            Their positions, in rising order.
        """
        lowest, highest = extremes[:, :, 0].min(axis=0), extremes[:, :, 1].max(axis=0)
        self._lowest = lowest if self._lowest is None else np.minimum(self._lowest, lowest)
        self._highest = highest if self._highest is None else np.maximum(self._highest, highest)
        width = self._highest - self._lowest
        width[width == 0] = 1
        chosen: list[int] = []
        nearest = np.full(len(extremes), np.inf)
        for drawn in self._drawn:
            nearest = np.minimum(nearest, _distances(extremes, drawn, width))
        for _ in range((len(extremes) + 1) // 2):
            farthest = int(nearest.argmax())  # the first of all where none is drawn
            chosen.append(farthest)
            nearest = np.minimum(nearest, _distances(extremes, extremes[farthest], width))
            nearest[chosen] = -1
        self._drawn += [extremes[position] for position in chosen]
        return sorted(chosen)


def _distances(extremes: Float64Array, other: Float64Array, width: Float64Array) -> Float64Array:
    found: npt.NDArray[np.float64] = (np.abs(extremes - other) / width[:, None]).max(axis=(1, 2))
    return found
