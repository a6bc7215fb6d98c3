"""Choosing the method, and whether to correct biases, by which INT8 logits are nearest to fp32's.

`mse:10` is the best method of most networks, or close to it. Another replaces it where it is clearly better, because clipping can
cost 10 dB. Smaller differences decide nothing: two sets of ranges that are equally good differ by up to 1 dB, by the rounding
that each small change of a range brings. Methods are judged on calibration images that the compared ranges do not come from: on
its own images `minmax` clips nothing, on others it does. Each variant is tried for the whole network, because a choice for each
tensor would overfit the calibration images. In the trial biases are corrected with few images, which costs 0.4 dB. So the chosen
method's are corrected again for its final ranges, and those are kept unless they are clearly worse than uncorrected ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, log, sqrt

import onnx_ir as ir

from emca_deploy._progress import Counter, Progress, Stage
from emca_deploy.arrays import Float32Array, Float64Array
from emca_deploy.calibration.graphs.graph_session import few_of
from emca_deploy.calibration.graphs.regions import ImageFeeds
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.graphs.weighted_layers import add_to_biases
from emca_deploy.calibration.ranges.observers import KEPT_OUT_TURN, TensorRange
from emca_deploy.calibration.recovery.bias_correction import BiasCorrection
from emca_deploy.data.sources import ImageSource
from emca_deploy.tasks.logits import LogitsNoise

__all__ = ["AUTO", "CANDIDATES", "IMAGES", "Choice", "ChoiceInput", "choose", "is_worse", "kept_out", "nearest", "preferred"]

AUTO = "auto"
"""The method that chooses among `CANDIDATES`."""

CANDIDATES = ("mse:10", "minmax", "mse")
"""The usual method, and those that replace it where they are better by `LEAST_DB`."""

LEAST_DB = 1.0
"""Smallest gain in decibels for which another method replaces the usual one, or biases are left as they are."""

IMAGES = 40
"""Most images that judge methods. They show differences of more than `LEAST_DB`."""

TRIAL_IMAGES = 16
"""Images whose means correct the biases of the methods that are tried; the chosen one's are corrected with more."""

STANDARD_ERRORS = 2.0
"""Smallest difference of two means over images that counts, in standard errors of the images' differences. Two variants differ by
some 5 dB (standard deviation) from image to image, so that means over 40 images differ by 1.6 dB by chance."""

COMPARING = "comparing with fp32"
"""Name of the stage that compares variants."""

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
            The chosen method's are those of its final ranges and biases.
    """

    method: str
    shifts: Shifts = field(default_factory=dict)
    sqnr_db: dict[str, float] = field(default_factory=dict)


def kept_out(indices: Sequence[int], batch: int) -> list[int]:
    """Return the images that `HistogramObserver` keeps out, for the number of images in each of its batches."""
    return [index for position, index in enumerate(indices) if (position // batch + 1) % KEPT_OUT_TURN == 0]


def choose(trial: ChoiceInput, ranges: Mapping[str, Ranges], stage: Stage, *, correct_biases: bool) -> Choice:
    """Choose among the ranges of several methods, and whether to correct biases.

    The first method is chosen unless another is clearly better.

    Raises:
        ModelError: ONNX Runtime refuses the model.
        DataError: an image cannot be read.
    """
    if len(ranges) == 1 and not correct_biases:
        return Choice(next(iter(ranges)))
    shifts = _corrections(trial, ranges, _trial_images(trial), stage) if correct_biases else {}
    judge = _Judge(trial)
    choices = {_label(choice): choice for choice in (Choice(method, shifts.get(method, {})) for method in ranges)}
    with stage(COMPARING) as progress:
        judge.compare([(label, choice.shifts, ranges[choice.method]) for label, choice in choices.items()], progress)
    chosen = choices[preferred(judge.noises)]
    if chosen.shifts:
        chosen = _with_final_biases(trial, chosen, ranges[chosen.method], judge, stage)
    return Choice(chosen.method, chosen.shifts, {label: noise.typical_db for label, noise in judge.noises.items()})


def _with_final_biases(trial: ChoiceInput, chosen: Choice, ranges: Ranges, judge: "_Judge", stage: Stage) -> Choice:
    """Return the choice with the biases to write: corrected for its final ranges, or not at all if that is clearly worse."""
    label, shifts = _label(chosen), chosen.shifts
    variants = []
    if trial.final is not None:
        ranges = trial.final(chosen.method)
        shifts = _corrections(trial, {chosen.method: ranges}, trial.indices, stage)[chosen.method]
        variants = [(label, shifts, ranges)]
    with stage(COMPARING) as progress:
        judge.compare([*variants, (chosen.method, {}, ranges)], progress)
    worse = is_worse(judge.noises[label], judge.noises[chosen.method], LEAST_DB)
    return Choice(chosen.method, {} if worse else shifts)


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
    best = max(noises.values(), key=lambda noise: noise.typical_db)
    alike = [label for label, noise in noises.items() if not _differs(best.image_db - noise.image_db)]

    def all_together(label: str) -> float:
        decibels = noises[label].all_db
        return inf if decibels is None else decibels

    return max(alike, key=all_together)


def _differs(gained: Float64Array, least: float = 0.0) -> bool:
    """Return whether the mean of the images' numbers is above `least`, and above 0 by more than chance."""
    return bool(gained.mean() > max(least, STANDARD_ERRORS * gained.std() / sqrt(len(gained))))


def is_worse(noise: LogitsNoise, other: LogitsNoise, least_db: float = 0.0) -> bool:
    """Return whether logits are farther from fp32's than others, for the mean image or for all together.

    The difference must be more than chance and more than `least_db`. The standard error of a ratio's logarithm is that of its
    terms over their means (delta method).
    """
    if _differs(other.image_db - noise.image_db, least_db):
        return True
    if not other.noise.any() or not noise.noise.any():
        return bool(noise.noise.any())
    lost = log(noise.noise.mean() / other.noise.mean())
    return _differs(lost + noise.noise / noise.noise.mean() - other.noise / other.noise.mean(), least_db * log(10) / 10)


def preferred(noises: Mapping[str, LogitsNoise]) -> str:
    """Return the first variant, or the nearest of those that are clearly better."""
    usual = next(iter(noises.values()))
    better = {label: noise for label, noise in noises.items() if is_worse(usual, noise, LEAST_DB) and not is_worse(noise, usual)}
    return nearest(better) if better else next(iter(noises))


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


class _Judge:
    """The noise of variants' logits on the images that judge them."""

    def __init__(self, trial: ChoiceInput) -> None:
        """Read the images."""
        self.noises: dict[str, LogitsNoise] = {}
        self._trial = trial
        images = few_of(trial.kept_out or trial.indices, IMAGES)
        self._simulation = Simulation(trial.model.graph, trial.source, images, trial.threads, trial.feeds)
        self._reference: Float32Array | None = None

    def compare(self, variants: Sequence[tuple[str, Shifts, Ranges]], progress: Progress | None) -> None:
        """Measure variants, each a label, the shifts of biases, and ranges."""
        count = Counter(progress, self._simulation.samples * (len(variants) + (self._reference is None)))
        if self._reference is None:
            self._reference = self._simulation.logits(self._trial.model, count)
        for label, shifts, ranges in variants:
            variant = self._trial.model.clone()
            add_to_biases(variant.graph, shifts)
            self._trial.quantize(variant, ranges)
            self.noises[label] = self._simulation.noise(self._reference, self._simulation.logits(variant, count))
