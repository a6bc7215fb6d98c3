"""Fine-tuning: the fp32 network teaches the quantized one to return the same tensors, on unlabelled calibration images.

This is distillation with simulated rounding. It starts from the result of all other recovery. Its result is used only where it
brings the logits of calibration images that were not trained on closer to fp32's.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from emca_deploy._optional import import_optional
from emca_deploy._progress import Stage
from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.choice import kept_out, nearest
from emca_deploy.calibration.graphs.graph_session import fixed_batch
from emca_deploy.calibration.graphs.simulation import Simulation
from emca_deploy.calibration.graphs.weighted_layers import set_bias
from emca_deploy.calibration.placement.place import Placement
from emca_deploy.calibration.placement.qdq import insert_qdq
from emca_deploy.calibration.placement.quantize import QuantizedWeight
from emca_deploy.calibration.ranges.observers import TensorRange
from emca_deploy.canonical.batch import image_value_of
from emca_deploy.canonical.marks import channels_last, label_of
from emca_deploy.data.sources import ImageSource
from emca_deploy.errors import InputError, ModelError
from emca_deploy.results.finetuning import FineTuned
from emca_deploy.tasks.logits import LogitsNoise

if TYPE_CHECKING:
    from emca_deploy.calibration.finetuning.training import Trained
    from emca_deploy.calibration.finetuning.twin import Rounding

__all__ = ["FEWEST_IMAGES", "FineTuning", "Lessons", "Start", "checked_teacher", "fine_tune"]

FEWEST_IMAGES = 8
"""Fewest calibration images: two of them are kept out."""

PROBES = 4
"""Calibration images on which the checkpoint must return what the model returns."""

LARGEST_DIFFERENCE = 1e-3
"""Largest difference of a logit, as a share of the largest one, between a checkpoint and its export by any exporter."""

Place = Callable[[ir.Graph], Placement]


@dataclass(frozen=True)
class FineTuning:
    """A teacher, and the limit of the time to learn from it.

    Attributes:
        checkpoint: file of the fp32 network.
        sha256: its sha256.
        teacher: function from images (N, 3, H, W) float32 to the network's logits (N, classes) float32.
        budget_s: most seconds of training.
    """

    checkpoint: Path
    sha256: str
    teacher: Callable[[Float32Array], Float32Array]
    budget_s: float


@dataclass(frozen=True)
class Lessons:
    """The calibration images, with the number of threads and the seed for their use."""

    source: ImageSource
    indices: Sequence[int]
    threads: int
    seed: int

    def load(self, indices: Sequence[int]) -> Float32Array:
        """Return some images, (N, 3, H, W) float32."""
        return np.concatenate([batch for batch, _ in self.source.batches(max(1, len(indices)), indices)])


@dataclass(frozen=True)
class Start:
    """The state that fine-tuning begins with, the best without training.

    Attributes:
        floating: canonical graph of the fp32 model.
        model: the same with corrected biases.
        place: function that returns the placement for a graph.
        ranges: ranges of the placement's tensors by name.
        weights: integers and scales of the layers' weights by node name.
    """

    floating: ir.Model
    model: ir.Model
    place: Place
    ranges: Mapping[str, TensorRange]
    weights: Mapping[str, QuantizedWeight]


def checked_teacher(model: ir.Model, how: FineTuning, images: Lessons) -> FineTuning:
    """Return the teacher if it can fine-tune a model, whose canonical graph is given; this comes before the long work.

    Raises:
        InputError: the checkpoint is of another network, or there are too few images.
        ModelError: the model's input or an operator has no form here.
        MissingError: torch is not installed.
    """
    torch = import_optional("torch")
    from emca_deploy.calibration.finetuning.twin import Twin

    label = label_of(model.graph)
    if len(images.indices) < FEWEST_IMAGES:
        raise InputError(f"{len(images.indices)} calibration images are too few to fine-tune on", f"give {FEWEST_IMAGES} or more")
    entry = image_value_of(model.graph)
    if channels_last(model.graph) or entry.dtype != ir.DataType.FLOAT or fixed_batch(model.graph) is not None:
        remedy = "export the checkpoint with `emca-deploy export`, without --batch"
        raise ModelError(f"{label}: fine-tuning takes a float32 input (N, 3, H, W) with a dynamic batch", remedy)
    probes = images.load(images.indices[:PROBES])
    twin = Twin(model.graph)
    with torch.inference_mode():
        own = twin(torch.from_numpy(probes)).reshape(len(probes), -1).numpy()
    taught = how.teacher(probes)
    if taught.shape != own.shape or not np.abs(taught - own).max() <= LARGEST_DIFFERENCE * np.abs(own).max():
        problem = f"{how.checkpoint}: is not the network of {label}, since their logits differ"
        raise InputError(problem, "name the checkpoint that the model was exported from")
    return how


def fine_tune(start: Start, how: FineTuning, images: Lessons, stage: Stage) -> tuple[FineTuned, dict[str, TensorRange]]:
    """Fine-tune, and return the record with the ranges to use; biases are changed in `start.model`.

    Where the result is not better, nothing is changed.

    Raises:
        ModelError: ONNX Runtime refuses a model.
        DataError: an image cannot be read.
    """
    import_optional("torch")
    from emca_deploy.calibration.finetuning.training import LARGEST_DB, Training
    from emca_deploy.calibration.finetuning.twin import Rounding, Twin

    judging = kept_out(images.indices, 1)
    without = set(judging)
    seen = [index for index in images.indices if index not in without]
    rounding = Rounding(start.place(start.model.graph), start.ranges, start.weights)
    begun = time.monotonic()
    with stage("fine-tuning") as progress:
        training = Training(Twin(start.floating.graph), Twin(start.model.graph, rounding), rounding, images.load, seen)
        trained = training.run((how.budget_s, images.threads, images.seed), progress)
    seconds = time.monotonic() - begun
    ranges, tuned = dict(start.ranges), start.model.clone()
    if trained.after_db < LARGEST_DB:  # else it diverged
        ranges |= rounding.current_ranges()
        _set_biases(tuned.graph, rounding)
    with stage("comparing with fp32"):
        simulation = Simulation(start.floating.graph, images.source, judging, images.threads)
        reference = simulation.logits(start.floating)

        def noise(model: ir.Model, ranges: Mapping[str, TensorRange]) -> LogitsNoise:
            variant = model.clone()
            insert_qdq(variant, start.place(variant.graph), ranges, start.weights)
            return LogitsNoise.of(reference, simulation.logits(variant))

        noises = (noise(start.model, start.ranges), noise(tuned, ranges))
    record = _record(noises, trained, how, (len(seen), len(judging)), seconds)
    if not record.kept:
        return record, dict(start.ranges)
    _set_biases(start.model.graph, rounding)
    return record, ranges


def _set_biases(graph: ir.Graph, rounding: "Rounding") -> None:
    """Give the layers of a float graph their fine-tuned biases."""
    for name, layer in rounding.layers.items():
        if layer.has_bias:
            set_bias(graph, graph.node(name), layer.trained_bias())


def _record(
    noises: tuple[LogitsNoise, LogitsNoise], trained: "Trained", how: FineTuning, counts: tuple[int, int], seconds: float
) -> FineTuned:
    before, after = noises
    return FineTuned(
        kept=nearest({"before": before, "after": after}) == "after",
        checkpoint_sha256=how.sha256,
        images=counts[0],
        kept_out=counts[1],
        steps=trained.steps,
        batch=trained.batch,
        complete=trained.complete,
        budget_s=how.budget_s,
        seconds=round(seconds, 1),
        loss_db=(round(trained.before_db, 2), round(trained.after_db, 2)),
        sqnr_db=(_rounded(before.all_db), _rounded(after.all_db)),
        typical_db=(round(before.typical_db, 2), round(after.typical_db, 2)),
    )


def _rounded(decibels: float | None) -> float | None:
    return None if decibels is None else round(decibels, 2)
