"""Choosing the method, and whether to correct biases, by which INT8 logits are nearest to fp32's.

No method is best for every network: clipping outliers can gain 10 dB. Methods are judged on calibration images that the compared
ranges do not come from: on its own images `minmax` clips nothing, on others it does. Each variant is tried for the whole network,
because a choice for each tensor would overfit the calibration images. The mean over images of each image's SQNR decides where
it differs by more than chance in a paired test, and the ratio of all logits otherwise. Methods that the test does not tell apart
are judged on more images, where there are more. Corrected biases are kept unless they are worse by more than chance.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from math import inf, log, sqrt

import onnx_ir as ir

from emca_deploy._progress import Counter, Stage
from emca_deploy.arrays import Float32Array, Float64Array
from emca_deploy.calibration.graphs.graph_session import few_of
from emca_deploy.calibration.graphs.regions import ImageFeeds
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.graphs.weighted_layers import add_to_biases
from emca_deploy.calibration.ranges.observers import KEPT_OUT_TURN, TensorRange
from emca_deploy.calibration.recovery.bias_correction import BiasCorrection
from emca_deploy.data.sources import ImageSource
from emca_deploy.tasks.logits import LogitsNoise

__all__ = ["AUTO", "CANDIDATES", "IMAGES", "Choice", "ChoiceInput", "choose", "is_worse", "kept_out", "nearest"]

AUTO = "auto"
"""The method that chooses among `CANDIDATES`."""

CANDIDATES = ("minmax", "mse:10", "mse")

IMAGES = 75
"""Most images that judge all methods: the kept-out ones of 300. As many others judge those that are alike on them."""

TRIAL_IMAGES = 32
"""Images whose means correct the biases of the methods that are tried; the chosen one's are corrected with more."""

STANDARD_ERRORS = 2.0
"""Smallest difference of two means over images that counts, in standard errors of the images' differences. Two variants differ by
some 5 dB (standard deviation) from image to image, so that means over 75 images differ by 1.2 dB by chance."""

Shifts = dict[str, Float32Array]

Ranges = Mapping[str, TensorRange]


@dataclass(frozen=True)
class ChoiceInput:
    """The network and images that methods are tried on.

    Attributes:
        quantize: function that inserts a placement's Q/DQ pairs with given ranges into a clone of the graph, in place.
        indices: images that the ranges come from, or were drawn from.
        kept_out: images that the compared ranges do not come from; empty where none are kept out.
        final: function that returns a method's final ranges, for which biases are corrected again; None where they are the
            compared ones.
    """

    model: ir.Model
    quantize: Callable[[ir.Model, Ranges], object]
    source: ImageSource
    indices: Sequence[int]
    threads: int
    kept_out: Sequence[int] = ()
    final: Callable[[str], Ranges] | None = None

    @cached_property
    def feeds(self) -> ImageFeeds:
        """The inputs of the network's variants, whose regions the images that correct biases and those that judge share."""
        return ImageFeeds(self.model.graph, self.threads)


@dataclass(frozen=True)
class Choice:
    """The chosen variant.

    Attributes:
        method: method of the ranges.
        shifts: shift of each layer's bias by node name; empty where biases are not corrected.
        sqnr_db: mean over the images that judged a variant of the logits' SQNR, by variant; empty where there was no choice.
    """

    method: str
    shifts: Shifts = field(default_factory=dict)
    sqnr_db: dict[str, float] = field(default_factory=dict)


def kept_out(indices: Sequence[int], batch: int) -> list[int]:
    """Return the images that `HistogramObserver` keeps out, for the number of images in each of its batches."""
    return [index for position, index in enumerate(indices) if (position // batch + 1) % KEPT_OUT_TURN == 0]


def choose(trial: ChoiceInput, ranges: Mapping[str, Ranges], stage: Stage, *, correct_biases: bool) -> Choice:
    """Choose among the ranges of several methods, and whether to correct biases; the first of equals is chosen.

    Raises:
        ModelError: ONNX Runtime refuses the model.
        DataError: an image cannot be read.
    """
    if len(ranges) == 1 and not correct_biases:
        return Choice(next(iter(ranges)))
    shifts = _corrections(trial, ranges, _trial_images(trial), stage) if correct_biases else {}
    choices = [Choice(method, shifts.get(method, {})) for method in ranges]
    chosen, noises = _compared(trial, ranges, choices, stage)
    final = chosen.shifts
    if final and trial.final is not None:
        final = _corrections(trial, {chosen.method: trial.final(chosen.method)}, trial.indices, stage)[chosen.method]
    return Choice(chosen.method, final, {label: noise.typical_db for label, noise in noises.items()})


def _nearest_of(choices: Sequence[Choice], noises: Mapping[str, LogitsNoise]) -> Choice:
    by_label = {_label(choice): choice for choice in choices}
    return by_label[nearest({label: noises[label] for label in by_label})]


def _trial_images(trial: ChoiceInput) -> Sequence[int]:
    """Return the images whose means correct biases before the choice."""
    if trial.final is None:
        return trial.indices
    without = set(trial.kept_out)
    return few_of([index for index in trial.indices if index not in without], TRIAL_IMAGES)


def _label(choice: Choice) -> str:
    return f"{choice.method}, biases corrected" if choice.shifts else choice.method


def nearest(noises: Mapping[str, LogitsNoise]) -> str:
    """Return the variant whose logits are nearest to fp32's.

    Of the variants that a paired test does not tell from the one with the largest mean of the images' SQNRs, it is the one whose
    SQNR of all logits is the largest.
    """

    def all_together(label: str) -> float:
        decibels = noises[label].all_db
        return inf if decibels is None else decibels

    return max(_alike(noises), key=all_together)


def _alike(noises: Mapping[str, LogitsNoise]) -> list[str]:
    """Return the variants that a paired test does not tell from the one with the largest mean of the images' SQNRs."""
    best = max(noises.values(), key=lambda noise: noise.typical_db)
    return [label for label, noise in noises.items() if not _differs(best.image_db - noise.image_db)]


def _differs(gained: Float64Array) -> bool:
    """Return whether the mean of the images' numbers is above 0 by more than chance."""
    return bool(gained.mean() > STANDARD_ERRORS * gained.std() / sqrt(len(gained)))


def is_worse(noise: LogitsNoise, other: LogitsNoise) -> bool:
    """Return whether logits are farther from fp32's than others by more than chance, for the mean image or for all together.

    The standard error of a ratio's logarithm is that of its terms over their means (delta method).
    """
    if _differs(other.image_db - noise.image_db):
        return True
    if not other.noise.any() or not noise.noise.any():
        return bool(noise.noise.any())
    lost = log(noise.noise.mean() / other.noise.mean())
    return _differs(lost + noise.noise / noise.noise.mean() - other.noise / other.noise.mean())


def _corrections(trial: ChoiceInput, ranges: Mapping[str, Ranges], indices: Sequence[int], stage: Stage) -> dict[str, Shifts]:
    """Return the shifts of the biases by method, from the means over some images."""
    found: dict[str, Shifts] = {}
    correction: BiasCorrection | None = None
    for method, own in ranges.items():
        with stage(f"correcting biases ({method})") as progress:

            def quantize(floating: ir.Model, own: Ranges = own) -> object:
                return trial.quantize(floating, own)

            correction = correction or BiasCorrection(trial.model, quantize, trial.source, indices, trial.threads, trial.feeds)
            found[method] = correction.shifts(quantize, progress)
    return found


class _Judges:
    """Some images, and the noise of variants' logits against fp32's on them. Images are in memory only while they are run."""

    def __init__(self, trial: ChoiceInput, ranges: Mapping[str, Ranges], indices: Sequence[int], stage: Stage) -> None:
        self._trial, self._ranges, self._indices, self._stage = trial, ranges, indices, stage
        self._reference: Float32Array | None = None

    def noises(self, choices: Sequence[Choice]) -> dict[str, LogitsNoise]:
        """Return the noise of each choice by label."""
        trial, found = self._trial, {}
        with self._stage("comparing with fp32") as progress:
            simulation = Simulation(trial.model.graph, trial.source, self._indices, trial.threads, trial.feeds)
            count = Counter(progress, simulation.samples * (len(choices) + (self._reference is None)))
            if self._reference is None:
                self._reference = simulation.logits(trial.model, count)
            for choice in choices:
                variant = trial.model.clone()
                add_to_biases(variant.graph, choice.shifts)
                trial.quantize(variant, self._ranges[choice.method])
                found[_label(choice)] = simulation.noise(self._reference, simulation.logits(variant, count))
        return found


def _compared(
    trial: ChoiceInput, ranges: Mapping[str, Ranges], choices: Sequence[Choice], stage: Stage
) -> tuple[Choice, dict[str, LogitsNoise]]:
    """Return the best choice, and the noise of variants' logits: of all choices, and of the nearest without its shifts.

    A choice that is clearly not the nearest on the first images is judged on no more.
    """
    images = trial.kept_out or trial.indices
    first = few_of(images, IMAGES)
    others = set(images) - set(first)
    more = few_of([index for index in images if index in others], IMAGES)
    judges = [_Judges(trial, ranges, first, stage)]
    tried = judges[0].noises(choices)
    left = [choice for choice in choices if _label(choice) in _alike(tried)]
    if len(left) > 1 and more:
        judges.append(_Judges(trial, ranges, more, stage))
        tried |= {label: tried[label].joined(noise) for label, noise in judges[1].noises(left).items()}
    best = _nearest_of(left, tried)
    if best.shifts:
        without = Choice(best.method)
        tried[best.method] = reduce(LogitsNoise.joined, [judge.noises([without])[best.method] for judge in judges])
        if is_worse(tried[_label(best)], tried[best.method]):
            best = without
    return best, tried
