"""Which ranges suit a network and a placement, and whether corrected biases do: what brings the INT8 logits nearest to fp32's.

No method is best everywhere. Smallest and largest values serve a network whose activations end soon after most of them do;
where a few lie far out, clipping these gains 10 dB. Corrected biases gain a few dB, and can cost as many where clipping moved
the means. So each is tried and the logits decide, as a whole: a choice for each tensor by itself learns the calibration images.
They decide image by image, by the mean of each one's ratio in dB: one ratio of all would be that of the few images, in some
networks, that are clipped and hold 99% of the error, while the predictions that change are others. Between variants that are
equally good by that mean, the ratio of all logits decides: then the clipping of a few images is a loss without a gain.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy._progress import Counter, Stage
from emca_deploy.calibration.graphs.graph_session import few_of
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.graphs.weighted_layers import add_to_biases
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.calibration.recovery.bias_correction import BiasCorrection
from emca_deploy.tasks.logits import LogitsNoise

if TYPE_CHECKING:
    from emca_deploy.data.sources import ImageSource

__all__ = ["AUTO", "CANDIDATES", "CLOSE_DB", "Choice", "ChoiceInput", "choose", "nearest"]

AUTO = "auto"
"""The method that is a choice among `CANDIDATES`."""

CANDIDATES = ("minmax", "mse")

IMAGES = 64
"""Calibration images whose logits decide. What they say of a candidate held within 1.5 dB on unseen images."""

CLOSE_DB = 0.5
"""Variants whose means over images differ by no more count as equal: 64 images tell no better. Of the ratio of all logits, ranges
that clip cost 1 to 13 dB in networks where they gain 0.1 to 0.3 dB of that mean; benchmarks/LOG.md has the figures."""

Shifts = dict[str, npt.NDArray[np.float32]]
Quantize = Callable[[ir.Model, Mapping[str, TensorRange]], object]


@dataclass(frozen=True)
class ChoiceInput:
    """What methods are tried on.

    Attributes:
        model: its graph; it is left as it is.
        quantize: inserts a placement's Q/DQ pairs with the ranges given into a clone of the graph, in place.
        indices: those of them that the ranges come from.
    """

    path: Path
    model: ir.Model
    quantize: Quantize
    source: "ImageSource"
    indices: Sequence[int]
    threads: int


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        method: whose ranges.
        shifts: what to add to each layer's bias, by node name; empty where correcting them gained nothing.
        sqnr_db: of the logits on calibration images, the mean over these, by what was tried; empty where there was nothing to
            choose.
    """

    method: str
    shifts: Shifts = field(default_factory=dict)
    sqnr_db: dict[str, float] = field(default_factory=dict)


def choose(trial: ChoiceInput, ranges: Mapping[str, Mapping[str, TensorRange]], stage: Stage, *, correct_biases: bool) -> Choice:
    """Choose among methods' ranges of every tensor, the first of equals, and whether to correct biases, if that is to be tried.

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
    """Return the variant whose logits are nearest to fp32's on a typical image; of those within `CLOSE_DB`, on all together."""
    typical = {label: noise.typical_db for label, noise in noises.items()}
    close = [label for label, decibels in typical.items() if decibels >= max(typical.values()) - CLOSE_DB]

    def all_together(label: str) -> float:
        decibels = noises[label].all_db
        return inf if decibels is None else decibels

    return max(close, key=all_together)


def _corrections(trial: ChoiceInput, ranges: Mapping[str, Mapping[str, TensorRange]], stage: Stage) -> dict[str, Shifts]:
    """Return what corrects the biases, by method."""
    found: dict[str, Shifts] = {}
    correction: BiasCorrection | None = None
    for method, own in ranges.items():
        with stage(f"correcting biases ({method})") as progress:
            quantize = _with(trial.quantize, own)
            correction = correction or BiasCorrection(trial.model, quantize, trial.source, trial.indices, trial.threads)
            found[method] = correction.shifts(quantize, progress)
    return found


def _compared(
    trial: ChoiceInput, ranges: Mapping[str, Mapping[str, TensorRange]], variants: Mapping[str, Choice], stage: Stage
) -> dict[str, LogitsNoise]:
    """Return how far each variant's logits are from fp32's on calibration images."""
    tried: dict[str, LogitsNoise] = {}
    with stage("comparing with fp32") as progress:
        simulation = Simulation(trial.path, trial.model.graph, trial.source, few_of(trial.indices, IMAGES), trial.threads)
        count = Counter(progress, simulation.samples * (1 + len(variants)))
        reference = simulation.logits(trial.model, count)
        for label, choice in variants.items():
            variant = trial.model.clone()
            add_to_biases(variant.graph, choice.shifts)
            trial.quantize(variant, ranges[choice.method])
            tried[label] = LogitsNoise.of(reference, simulation.logits(variant, count))
    return tried


def _with(quantize: Quantize, ranges: Mapping[str, TensorRange]) -> Callable[[ir.Model], object]:
    return lambda floating: quantize(floating, ranges)
