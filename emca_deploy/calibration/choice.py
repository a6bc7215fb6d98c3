"""Choosing the method, and whether to correct biases, by which INT8 logits are nearest to fp32's.

No method is best for every network: clipping outliers can gain 10 dB, and corrected biases can gain or cost a few dB. Each
variant is tried for the whole network, because a choice for each tensor would overfit the calibration images. The mean over
images of each image's SQNR decides: a few clipped images can hold 99% of the error of all logits. The ratio of all logits decides
only between variants with equal means.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import onnx_ir as ir

from emca_deploy._progress import Counter, Stage
from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.graph_session import few_of
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.graphs.weighted_layers import add_to_biases
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.calibration.recovery.bias_correction import BiasCorrection
from emca_deploy.data.sources import ImageSource
from emca_deploy.tasks.logits import LogitsNoise

__all__ = ["AUTO", "CANDIDATES", "CLOSE_DB", "Choice", "ChoiceInput", "choose", "nearest"]

AUTO = "auto"
"""The method that chooses among `CANDIDATES`."""

CANDIDATES = ("minmax", "mse")

IMAGES = 64
"""Calibration images whose logits decide. Candidates stayed within 1.5 dB of this measurement on unseen images."""

CLOSE_DB = 0.5
"""Largest difference of equal means over images, as precise as 64 images are. Where clipping gains 0.1 to 0.3 dB of this mean, it
costs 1 to 13 dB of the ratio of all logits (benchmarks/LOG.md)."""

Shifts = dict[str, Float32Array]


@dataclass(frozen=True)
class ChoiceInput:
    """The network and images that methods are tried on.

    Attributes:
        quantize: function that inserts a placement's Q/DQ pairs with given ranges into a clone of the graph, in place.
        indices: images that the ranges come from.
    """

    model: ir.Model
    quantize: Callable[[ir.Model, Mapping[str, TensorRange]], object]
    source: ImageSource
    indices: Sequence[int]
    threads: int


@dataclass(frozen=True)
class Choice:
    """The chosen variant.

    Attributes:
        method: method of the ranges.
        shifts: shift of each layer's bias by node name; empty where correction gained nothing.
        sqnr_db: mean over calibration images of the logits' SQNR, by variant; empty where there was no choice.
    """

    method: str
    shifts: Shifts = field(default_factory=dict)
    sqnr_db: dict[str, float] = field(default_factory=dict)


def choose(trial: ChoiceInput, ranges: Mapping[str, Mapping[str, TensorRange]], stage: Stage, *, correct_biases: bool) -> Choice:
    """Choose among the ranges of several methods, and whether to correct biases; the first of equals is chosen.

    Raises:
        ModelError: ONNX Runtime refuses the model.
        DataError: an image cannot be read.
    """
    if len(ranges) == 1 and not correct_biases:
        return Choice(next(iter(ranges)))
    variants = {method: Choice(method) for method in ranges}
    if correct_biases:
        shifts = _corrections(trial, ranges, stage)
        variants |= {f"{method}, biases corrected": Choice(method, own) for method, own in shifts.items() if own}
    noises = _compared(trial, ranges, variants, stage)
    best = variants[nearest(noises)]
    return Choice(best.method, best.shifts, {label: noise.typical_db for label, noise in noises.items()})


def nearest(noises: Mapping[str, LogitsNoise]) -> str:
    """Return the variant whose logits are nearest to fp32's on a typical image; within `CLOSE_DB`, on all images together."""
    typical = {label: noise.typical_db for label, noise in noises.items()}
    close = [label for label, decibels in typical.items() if decibels >= max(typical.values()) - CLOSE_DB]

    def all_together(label: str) -> float:
        decibels = noises[label].all_db
        return inf if decibels is None else decibels

    return max(close, key=all_together)


def _corrections(trial: ChoiceInput, ranges: Mapping[str, Mapping[str, TensorRange]], stage: Stage) -> dict[str, Shifts]:
    """Return the shifts of the biases by method."""
    found: dict[str, Shifts] = {}
    correction: BiasCorrection | None = None
    for method, own in ranges.items():
        with stage(f"correcting biases ({method})") as progress:

            def quantize(floating: ir.Model, own: Mapping[str, TensorRange] = own) -> object:
                return trial.quantize(floating, own)

            correction = correction or BiasCorrection(trial.model, quantize, trial.source, trial.indices, trial.threads)
            found[method] = correction.shifts(quantize, progress)
    return found


def _compared(
    trial: ChoiceInput, ranges: Mapping[str, Mapping[str, TensorRange]], variants: Mapping[str, Choice], stage: Stage
) -> dict[str, LogitsNoise]:
    """Return the noise of each variant's logits against fp32's on calibration images."""
    tried: dict[str, LogitsNoise] = {}
    with stage("comparing with fp32") as progress:
        simulation = Simulation(trial.model.graph, trial.source, few_of(trial.indices, IMAGES), trial.threads)
        count = Counter(progress, simulation.samples * (1 + len(variants)))
        reference = simulation.logits(trial.model, count)
        for label, choice in variants.items():
            variant = trial.model.clone()
            add_to_biases(variant.graph, choice.shifts)
            trial.quantize(variant, ranges[choice.method])
            tried[label] = LogitsNoise.of(reference, simulation.logits(variant, count))
    return tried
