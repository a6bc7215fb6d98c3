"""Choosing the method, and whether to correct biases, by which INT8 logits are nearest to fp32's.

No method is best for every network: clipping outliers can gain 10 dB. Methods are judged on calibration images that the compared
ranges do not come from: on its own images `minmax` clips nothing, on others it does. Each variant is tried for the whole network,
because a choice for each tensor would overfit the calibration images. The mean over images of each image's SQNR decides where
it differs by more than chance in a paired test, and the ratio of all logits otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, sqrt

import onnx_ir as ir

from emca_deploy._progress import Counter, Stage
from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.graph_session import few_of
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.graphs.weighted_layers import add_to_biases
from emca_deploy.calibration.ranges.observers import KEPT_OUT_TURN, TensorRange
from emca_deploy.calibration.recovery.bias_correction import BiasCorrection
from emca_deploy.data.sources import ImageSource
from emca_deploy.tasks.logits import LogitsNoise

__all__ = ["AUTO", "CANDIDATES", "IMAGES", "Choice", "ChoiceInput", "choose", "kept_out", "nearest"]

AUTO = "auto"
"""The method that chooses among `CANDIDATES`."""

CANDIDATES = ("minmax", "mse:10", "mse")

IMAGES = 75
"""Most images whose logits decide: the kept-out ones of 300."""

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


@dataclass(frozen=True)
class Choice:
    """The chosen variant.

    Attributes:
        method: method of the ranges.
        shifts: shift of each layer's bias by node name; empty where correction gained nothing.
        sqnr_db: mean over the judging images of the logits' SQNR, by variant; empty where there was no choice.
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
    noises = _compared(trial, ranges, choices, stage)
    best = nearest(noises)
    chosen = next((choice for choice in choices if _label(choice) == best), Choice(best))
    final = chosen.shifts
    if final and trial.final is not None:
        final = _corrections(trial, {chosen.method: trial.final(chosen.method)}, trial.indices, stage)[chosen.method]
    return Choice(chosen.method, final, {label: noise.typical_db for label, noise in noises.items()})


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
    best = max(noises.values(), key=lambda noise: noise.typical_db).image_db

    def is_alike(noise: LogitsNoise) -> bool:
        lost = best - noise.image_db
        return bool(lost.mean() <= STANDARD_ERRORS * lost.std() / sqrt(len(lost)))

    def all_together(label: str) -> float:
        decibels = noises[label].all_db
        return inf if decibels is None else decibels

    return max((label for label, noise in noises.items() if is_alike(noise)), key=all_together)


def _corrections(trial: ChoiceInput, ranges: Mapping[str, Ranges], indices: Sequence[int], stage: Stage) -> dict[str, Shifts]:
    """Return the shifts of the biases by method, from the means over some images."""
    found: dict[str, Shifts] = {}
    correction: BiasCorrection | None = None
    for method, own in ranges.items():
        with stage(f"correcting biases ({method})") as progress:

            def quantize(floating: ir.Model, own: Ranges = own) -> object:
                return trial.quantize(floating, own)

            correction = correction or BiasCorrection(trial.model, quantize, trial.source, indices, trial.threads)
            found[method] = correction.shifts(quantize, progress)
    return found


def _compared(
    trial: ChoiceInput, ranges: Mapping[str, Ranges], choices: Sequence[Choice], stage: Stage
) -> dict[str, LogitsNoise]:
    """Return the noise of variants' logits against fp32's: of all choices, and of the nearest without its shifts."""
    tried: dict[str, LogitsNoise] = {}
    with stage("comparing with fp32") as progress:
        simulation = Simulation(trial.model.graph, trial.source, few_of(trial.kept_out or trial.indices, IMAGES), trial.threads)
        without_shifts = any(choice.shifts for choice in choices)
        count = Counter(progress, simulation.samples * (1 + len(choices) + without_shifts))
        reference = simulation.logits(trial.model, count)

        def noise(choice: Choice) -> LogitsNoise:
            variant = trial.model.clone()
            add_to_biases(variant.graph, choice.shifts)
            trial.quantize(variant, ranges[choice.method])
            return LogitsNoise.of(reference, simulation.logits(variant, count))

        tried = {_label(choice): noise(choice) for choice in choices}
        if without_shifts:
            best = next(choice.method for choice in choices if _label(choice) == nearest(tried))
            tried[best] = noise(Choice(best))
    return tried
