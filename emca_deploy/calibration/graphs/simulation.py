"""Simulating the effect of a placement on the logits or a detector's last layers, on any machine, with ONNX Runtime.

Q/DQ pairs are computed in float as ONNX defines them, without a runtime's integer kernels, fusions or saturation. The result
depends only on the placement; it is the same on every processor up to float rounding.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.graph_session import GraphSession, batch_size, find_values, in_order, pool_size, prune
from emca_deploy.calibration.graphs.regions import Feed, ImageFeeds, read_given_regions
from emca_deploy.canonical.marks import compared_values, label_of, task_of_graph
from emca_deploy.data.sources import ImageSource
from emca_deploy.tasks.logits import LogitsNoise

__all__ = ["Simulation"]


class Simulation:
    """Images in memory, and what variants of one fp32 graph return for them: logits, or the results of a detector's last layers.

    The images of `indices` are decoded once and kept as float32. A detector's heads read the fp32 graph's regions.

    Attributes:
        parts: numbers of columns that each compared tensor has in the rows of `logits`, after the first call.
    """

    def __init__(
        self, graph: ir.Graph, source: ImageSource, indices: Sequence[int], threads: int, feeds: ImageFeeds | None = None
    ) -> None:
        """Read the images; `feeds` of the same graph and source know the regions of images that were read before.

        Raises:
            ModelError: ONNX Runtime refuses the graph or the images.
            DataError: an image cannot be read.
        """
        batches = [images for images, _ in source.batches(batch_size(graph, threads), indices)]
        self._threads, self._counts = threads, [len(images) for images in batches]
        self._feeds = (feeds or ImageFeeds(graph, threads)).of(indices, batches)
        self._task, self._names = task_of_graph(graph), [str(value.name) for value in compared_values(graph)]
        self.parts: list[int] = []
        self.samples = len(indices)

    def logits(self, model: ir.Model, step: Callable[[int], None] | None = None) -> Float32Array:
        """Return the logits (N, classes) float32 of a variant, or what a detector is compared by in one row for each image.

        `step` is called after each batch with its number of images.

        Raises:
            ModelError: ONNX Runtime refuses the model or the images, or the logits are not finite.
        """
        label, rows = label_of(model.graph), []
        for tensors, count in zip(self.outputs(model, step), self._counts, strict=True):
            parts = [self._task.rows(label, tensor, count) for tensor in tensors]
            self.parts = [part.shape[1] for part in parts]
            rows.append(np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0])
        return np.concatenate(rows)

    def noise(self, reference: Float32Array, logits: Float32Array) -> LogitsNoise:
        """Return the difference of two variants' `logits`; each of a detector's layers has the same weight."""
        return LogitsNoise.of(reference, logits, self.parts)

    def flips_percent(self, reference: Float32Array, logits: Float32Array) -> float | None:
        """Return the percentage of images whose answer differs; None where `logits` do not show it."""
        return self._task.flips_percent(reference, logits)

    def outputs(self, model: ir.Model, step: Callable[[int], None] | None = None) -> list[list[Float32Array]]:
        """Return the compared tensors of a variant whatever they are, each (n, ...) float32 for each batch of n images.

        Raises:
            ModelError: ONNX Runtime refuses the model or the images.
        """
        variant = model.clone()
        read_given_regions(variant)
        compared = self._compared(variant.graph)
        variant.graph.outputs.clear()
        variant.graph.outputs.extend(compared)
        prune(variant)
        workers, threads_each = pool_size(self._threads)
        session = GraphSession(variant, threads_each, exact=True)
        found = []

        def run(feed: Feed) -> list[Float32Array]:
            given = {name: feed[name] for name in session.inputs}
            return [np.asarray(tensor, np.float32) for tensor in session.run(given)]

        for feed, count, tensors in zip(self._feeds, self._counts, in_order(run, self._feeds, workers), strict=True):
            size = len(feed[session.inputs[0]])
            found.append([tensor[: count * (len(tensor) // size)] for tensor in tensors])
            if step is not None:
                step(count)
        return found

    def _compared(self, graph: ir.Graph) -> list[ir.Value]:
        """Return the compared tensors of a variant, whose logits may have another name than the fp32 graph's."""
        try:
            return find_values(graph, self._names)
        except KeyError:
            return compared_values(graph)
