"""Bias correction: shifting each layer's bias until the channels' means are those of the fp32 model.

Rounding moves the mean of every channel, and later layers take the shift for signal. Source: Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction" (2019), section 4.2, with means measured on images as in its
appendix. Layers are corrected one at a time from the input on: several at once would correct the same shift several times. A
layer that ends a residual branch is corrected where the branch joins the shortcut, which also corrects the shortcut's rounding.
Means are taken after a ReLU where there is one, because ranges end there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from emca_deploy._progress import Progress
from emca_deploy.arrays import Float32Array, Float64Array
from emca_deploy.calibration.graphs.attention_path import find_attention
from emca_deploy.calibration.graphs.graph import only_feeds
from emca_deploy.calibration.graphs.graph_session import (
    GraphRunner,
    append_output,
    batch_size,
    few_of,
    find_values,
    in_order,
    pool_size,
)
from emca_deploy.calibration.graphs.regions import Feed, ImageFeeds, read_given_regions
from emca_deploy.calibration.graphs.weighted_layers import bias_of, set_bias, weighted_layers
from emca_deploy.calibration.placement.place import identity_operand
from emca_deploy.calibration.recovery.settled import SettlingMeans
from emca_deploy.canonical.edit import producer_of
from emca_deploy.data.sources import ImageSource

__all__ = ["Anchor", "BiasCorrection", "find_anchors"]

Quantize = Callable[[ir.Model], object]

IMAGES = 100
"""Images to take means over; 300 gained nothing over 100, and 48 cost up to 0.3 dB of a typical image (bundled network)."""

TRIMMED = 0.1
"""Share of images at each end whose differences do not count in a channel's shift. Clipping moves the means of a few images with
activations beyond the ranges by more than rounding moves all others: with plain means, correction cost emca_srm_resnet50 15 dB on
a typical image."""

SMALLEST_GATE = 0.05
"""Smallest mean of a gate by which a shift is divided."""

SMALLEST_ACTIVE = 0.3
"""Smallest share of a channel's values passing its ReLU by which a shift is divided: a few pixels would move a seldom active
channel far. On three ResNet-50s and an 18, values from 0.1 to 1 were between 0.5 dB better and 1 dB worse."""


@dataclass(frozen=True)
class Anchor:
    """The tensor whose means a layer's bias restores.

    Attributes:
        value: name of the layer's output, or of the sum of its branch and the shortcut; after a ReLU where one follows.
        gate: name of the attention's gate between the layer and the sum.
        shortcut: name of the shortcut's layer, whose shift also changes `value`.
        cut: whether a ReLU returns `value`.
    """

    value: str
    gate: str | None = None
    shortcut: str | None = None
    cut: bool = False


def find_anchors(graph: ir.Graph) -> dict[str, Anchor]:
    """Return each weighted layer's anchor in a float graph."""
    layers = weighted_layers(graph)
    anchors = {name: _anchor(node.outputs[0]) for name, node in layers.items()}
    attention = find_attention(graph)
    for node in graph:
        if node.op_type != "Add" or len(node.inputs) != 2:
            continue
        identity = identity_operand(node, attention)
        branch, shortcut = node.inputs[1 - identity], node.inputs[identity]
        producer, before = producer_of(branch), producer_of(shortcut)
        gate = None
        if producer is not None and producer in attention.gates:
            index = attention.gates[producer]
            gate, producer = producer.inputs[index], producer_of(producer.inputs[1 - index])
        if producer is None or layers.get(str(producer.name)) is not producer:
            continue
        partner = str(before.name) if before is not None and layers.get(str(before.name)) is before else None
        anchors[str(producer.name)] = _anchor(node.outputs[0], str(gate.name) if gate is not None else None, partner)
    return anchors


def _anchor(value: ir.Value, gate: str | None = None, shortcut: str | None = None) -> Anchor:
    if only_feeds(value, "Relu"):
        relu = next(iter(value.uses())).node
        return Anchor(str(relu.outputs[0].name), gate, shortcut, cut=True)
    return Anchor(str(value.name), gate, shortcut)


class BiasCorrection:
    """The correction of a placement's biases, for any ranges of its tensors."""

    def __init__(
        self,
        model: ir.Model,
        quantize: Quantize,
        source: ImageSource,
        indices: Sequence[int],
        threads: int,
        feeds: ImageFeeds | None = None,
    ) -> None:
        """Read `IMAGES` of the images that the ranges come from.

        `quantize` inserts the placement's Q/DQ pairs with any ranges into a clone of the float model, in place. `feeds` of the
        same graph and source know the regions of images that were read before.

        Raises:
            DataError: an image cannot be read.
        """
        self._model, self._threads, self._indices = model, threads, few_of(indices, IMAGES)
        self._images = [batch for batch, _ in source.batches(batch_size(model.graph, threads), self._indices)]
        self._image_feeds = feeds or ImageFeeds(model.graph, threads)
        self._anchors = find_anchors(model.graph)
        layers = weighted_layers(model.graph)
        quantized = model.clone()
        quantize(quantized)
        left = weighted_layers(quantized.graph)
        order = _in_order([name for name in layers if name not in left], self._anchors)
        self._biases = {name: bias_of(layers[name]) for name in order}

    @cached_property
    def _feeds(self) -> list[Feed]:
        return self._image_feeds.of(self._indices, self._images)

    @cached_property
    def _wanted(self) -> dict[str, Float64Array]:
        """The float model's means, and the shares of values that pass its ReLUs."""
        measured, names = _to_restore(self._model, [self._anchors[layer] for layer in self._biases])
        workers, threads_each = pool_size(self._threads)
        batches = list(in_order(GraphRunner(measured, names, threads_each, means=True), self._images, workers))
        return {name: np.concatenate([batch[name] for batch in batches]).astype(np.float64) for name in names}

    def shifts(self, quantize: Quantize, progress: Progress | None = None) -> dict[str, Float32Array]:
        """Return the shift of every quantized layer's bias, (output channels,) float32 by node name.

        `quantize` inserts Q/DQ pairs with the ranges to correct for; `progress` is called with (layers done, all layers).

        Raises:
            ModelError: ONNX Runtime refuses the model or the images.
        """
        quantized = self._model.clone()
        quantize(quantized)  # once: only the biases, which are float here, change from layer to layer
        read_given_regions(quantized)
        settling = SettlingMeans(self._feeds, [len(images) for images in self._images], self._threads)
        shifts: dict[str, Float32Array] = {}
        to_change = set(self._biases)
        for done, (layer, bias) in enumerate(self._biases.items(), 1):
            anchor = self._anchors[layer]
            found = settling.measure(quantized, anchor.value, to_change)
            shifts[layer] = _shift(anchor, self._wanted, found)
            set_bias(quantized.graph, quantized.graph.node(layer), bias + shifts[layer])
            to_change.remove(layer)
            if progress:
                progress(done, len(self._biases))
        return shifts


def _to_restore(model: ir.Model, anchors: Sequence[Anchor]) -> tuple[ir.Model, list[str]]:
    """Return a clone of a float model and its tensors whose means are needed, with the share of values that pass each ReLU."""
    measured = model.clone()
    names = {anchor.value for anchor in anchors} | {anchor.gate for anchor in anchors if anchor.gate is not None}
    for value in find_values(measured.graph, sorted({anchor.value for anchor in anchors if anchor.cut})):
        # The sign of a ReLU's result is 1 where a value passes, 0 elsewhere.
        active = append_output(measured.graph, ir.node("Sign", [value]), _active(str(value.name)))
        active.shape = value.shape
        names.add(str(active.name))
    return measured, sorted(names)


def _active(value: str) -> str:
    return f"{value}/active"


def _shift(anchor: Anchor, wanted: Mapping[str, Float64Array], found: Float64Array) -> Float32Array:
    """Return the shift, (output channels,), of the bias of an anchor's layer, from the means (N, C) found at the anchor."""
    differences = np.sort(wanted[anchor.value] - found, axis=0)
    cut = int(len(differences) * TRIMMED)
    shift = differences[cut : len(differences) - cut].mean(axis=0)
    if anchor.cut:
        shift = shift / np.maximum(wanted[_active(anchor.value)].mean(axis=0), SMALLEST_ACTIVE)
    if anchor.gate is not None:
        shift = shift / np.maximum(wanted[anchor.gate].mean(axis=0), SMALLEST_GATE)
    return np.asarray(shift, np.float32)


def _in_order(layers: Sequence[str], anchors: Mapping[str, Anchor]) -> list[str]:
    """Return layers, given in the order they run, with each shortcut's layer before the layer that ends in the sum."""
    ordered: dict[str, None] = {}
    for name in layers:
        shortcut = anchors[name].shortcut
        if shortcut is not None and shortcut in layers:
            ordered[shortcut] = None
        ordered[name] = None
    return list(ordered)
