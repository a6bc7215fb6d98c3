"""Names the mistakes in a preprocessing from what it made of the probes."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float64Array
from emca_deploy.data.checking.mistakes import Candidate, candidates
from emca_deploy.data.checking.probes import Probe
from emca_deploy.data.checking.steps import Steps
from emca_deploy.errors import DataError
from emca_deploy.results.check_preprocess import WrongStep

__all__ = ["Diagnosis", "Given", "diagnose", "read_given"]

MEAN_STEPS, RARE_STEPS = 0.6, 3.0
"""Mean and 99th percentile of the differences, in 255 steps of a pixel, up to which an image agrees: decoders differ by this."""

_PER_MISTAKE = 0.02
"""How much smaller the mean difference must be, in steps, for another mistake to be believed."""


@dataclass(frozen=True)
class Given:
    """What somebody's preprocessing made of one image.

    Attributes:
        array: The array as it was given.
    """

    array: npt.NDArray[Any]

    def in_rows(self, steps: Steps, channels: int) -> "tuple[Float64Array, bool]":
        """Return the numbers as (H, W, C), and whether they lie in memory as (H, W, C), by the array's own shape.

        Raises:
            ValueError: the shape is no image's.
        """
        array = self.array[0] if self.array.ndim == 4 and len(self.array) == 1 else self.array
        if array.ndim == 2 and channels == 1:
            array = array[None]
        if array.ndim != 3:
            raise ValueError(f"shape {self.array.shape}")
        wide = array.astype(np.float64)
        if array.shape[2] == channels and array.shape[0] != channels:
            return wide, True
        if array.shape[0] == channels and array.shape[2] != channels:
            return wide.transpose(1, 2, 0), False
        if channels in (array.shape[0], array.shape[2]):  # an image as small as its channels: as the model has them
            return (wide, True) if steps.values.interleaved else (wide.transpose(1, 2, 0), False)
        raise ValueError(f"shape {self.array.shape}")


def read_given(content: bytes, name: str) -> Given:
    """Return the array of a .npy file.

    Raises:
        DataError: it is none, has no numbers, or has numbers that are not finite.
    """
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as exc:
        raise DataError(f"{name}: is no .npy file of numbers", "write it with numpy.save, or in numpy's format") from exc
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or not array.size:
        raise DataError(f"{name}: has no numbers", "write the input of the model to it")
    if not np.isfinite(array).all():
        raise DataError(f"{name}: has numbers that are not finite", "write the input of the model to it")
    return Given(array)


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a preprocessing.

    Attributes:
        steps: Steps that give the same numbers; None where no candidate does.
        mistakes: Wrong steps; empty where all is right, or where no candidate fits.
        mean_steps: Mean difference from the right numbers, in 255 steps of a pixel; None where the sizes differ.
        largest_steps: Largest difference from them, in the same unit.
    """

    steps: Steps | None
    mistakes: tuple[WrongStep, ...] = ()
    mean_steps: float | None = None
    largest_steps: float | None = None

    @property
    def right(self) -> bool:
        """Whether the numbers are those that the model needs."""
        return self.steps is not None and not self.mistakes


def diagnose(images: Sequence[Probe], given: Sequence[Given], right: Steps, dtype: str) -> Diagnosis:
    """Compare what a preprocessing made of the probes with what each mistake, and each pair of them, makes.

    Args:
        images: The probes.
        given: What the preprocessing made of each.
        right: The steps of the model.
        dtype: Type of the model's input, "float32" or "uint8".
    """
    channels = len(right.values.mean)
    wrong = [mistake for mistake in (_of_type(given[0], dtype),) if mistake is not None]
    try:
        rows = [each.in_rows(right, channels) for each in given]
    except ValueError as exc:
        return Diagnosis(None, (WrongStep("layout", str(exc), _shape(right, channels)), *wrong))
    if rows[0][1] != right.values.interleaved:
        shapes = ("(H, W, C)", "(C, H, W)")
        wrong.append(WrongStep("layout", shapes[not rows[0][1]], shapes[not right.values.interleaved]))
    size = tuple(right.geometry.pixels(images[0].opened()).shape[:2])
    if any(each.shape[:2] != size for each, _ in rows):
        other = next(each.shape[:2] for each, _ in rows if each.shape[:2] != size)
        found, wanted = (f"{tall}x{wide}" for tall, wide in (other, size))
        return Diagnosis(None, (WrongStep("crop size", f"gave {found}", wanted), *wrong))
    search = _Search(images, [each for each, _ in rows], right)
    best = search.best(2 - len(wrong))
    mean, largest = search.difference(Candidate(right))
    if best is None:
        return Diagnosis(None, tuple(wrong), mean, largest)
    laid = replace(best.steps, values=replace(best.steps.values, interleaved=rows[0][1] != (
        best.steps.values.interleaved != right.values.interleaved
    )))  # fmt: skip
    return Diagnosis(laid, (*best.mistakes, *wrong), mean, largest)


def _of_type(given: Given, dtype: str) -> WrongStep | None:
    found = given.array.dtype.name
    return None if found == dtype else WrongStep("dtype", found, dtype)


def _shape(right: Steps, channels: int) -> str:
    return f"(1, H, W, {channels})" if right.values.interleaved else f"(1, {channels}, H, W)"


class _Search:
    """The search for the candidate that makes the given numbers; few are compared on all images."""

    def __init__(self, images: Sequence[Probe], given: Sequence[Float64Array], right: Steps) -> None:
        self._images, self._given, self._right = [each.opened() for each in images], given, right
        self._pixels: dict[Any, Any] = {}

    def best(self, most: int) -> Candidate | None:
        """Return the candidate with the fewest mistakes that agrees with every image, or None."""
        left = [each for each in candidates(self._right) if len(each.mistakes) <= max(most, 0) or len(each.mistakes) > 2]
        totals = {id(each): 0.0 for each in left}
        for index in range(len(self._given)):
            scored = []
            for each in left:
                mean, rare, _ = self._compared(each, index)
                if mean <= MEAN_STEPS and rare <= RARE_STEPS:
                    totals[id(each)] += mean
                    scored.append(each)
            left = scored
            if not left:
                return None
            self._pixels.clear()
        return min(left, key=lambda each: totals[id(each)] / len(self._given) + _PER_MISTAKE * len(each.mistakes))

    def difference(self, candidate: Candidate) -> tuple[float, float]:
        """Return the mean and the largest difference over all images, in steps."""
        found = [self._compared(candidate, index) for index in range(len(self._given))]
        return float(np.mean([mean for mean, *_ in found])), max(largest for *_, largest in found)

    def _compared(self, candidate: Candidate, index: int) -> tuple[float, float, float]:
        """Return the mean, the 99th percentile and the largest difference on one image, in steps."""
        key = (index, candidate.steps.geometry)
        if key not in self._pixels:
            self._pixels[key] = candidate.steps.geometry.pixels(self._images[index])
        values = candidate.steps.values
        numbers = values.numbers(self._pixels[key])
        if values.interleaved != self._right.values.interleaved:
            numbers = _shuffled(numbers, given_interleaved=self._right.values.interleaved)
        steps = np.abs(numbers - self._given[index]) / values.step
        return float(steps.mean()), float(np.percentile(steps, 99)), float(steps.max())


def _shuffled(numbers: Float64Array, *, given_interleaved: bool) -> Float64Array:
    """Return (H, W, C) as it is read by somebody who takes the memory of the other layout for his own."""
    tall, wide, channels = numbers.shape
    if given_interleaved:  # planes in memory, read as rows of pixels
        return np.asarray(numbers.transpose(2, 0, 1).reshape(tall, wide, channels))
    return np.asarray(numbers.reshape(channels, tall, wide).transpose(1, 2, 0))
