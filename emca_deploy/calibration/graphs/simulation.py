"""Simulating the effect of a placement on the logits, on any machine, with ONNX Runtime.

Q/DQ pairs are computed in float as ONNX defines them, without a runtime's integer kernels, fusions or saturation. The result
depends only on the placement; it is the same on every processor up to float rounding.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from emca_deploy.arrays import Float32Array
from emca_deploy.calibration.graphs.graph_session import GraphSession, batch_size, feed_of, in_order, pool_size, prune
from emca_deploy.canonical.marks import label_of, logits_value
from emca_deploy.data.sources import ImageSource
from emca_deploy.errors import ModelError

__all__ = ["Simulation"]


class Simulation:
    """Images in memory, and the logits that variants of one fp32 graph return for them.

    The images of `indices` are decoded once and kept as float32.
    """

    def __init__(self, graph: ir.Graph, source: ImageSource, indices: Sequence[int], threads: int) -> None:
        self._threads = threads
        self._batches = [images for images, _ in source.batches(batch_size(graph, threads), indices)]
        self.samples = len(indices)

    def logits(self, model: ir.Model, step: Callable[[int], None] | None = None) -> Float32Array:
        """Return the logits (N, classes) float32 of a variant; `step` is called after each batch with its number of images.

        Raises:
            ModelError: ONNX Runtime refuses the model or the images, or the logits are not finite.
        """
        logits = np.concatenate(self.outputs(model, step))
        if logits.ndim == 4:  # (N, classes, 1, 1)
            logits = logits.reshape(len(logits), -1)
        if logits.ndim != 2 or not np.isfinite(logits).all():
            raise ModelError(f"{label_of(model.graph)}: its output is no finite logits (N, classes)", "name an image classifier")
        return logits

    def outputs(self, model: ir.Model, step: Callable[[int], None] | None = None) -> list[Float32Array]:
        """Return the output of a variant whatever it is, (n, ...) float32 for each batch of n images.

        Raises:
            ModelError: ONNX Runtime refuses the model or the images.
        """
        variant = model.clone()
        value = logits_value(variant.graph)
        variant.graph.outputs.clear()
        variant.graph.outputs.append(value)
        prune(variant)
        workers, threads_each = pool_size(self._threads)
        session = GraphSession(variant, threads_each, exact=True)
        parts = []

        def run(images: Float32Array) -> Float32Array:
            return np.asarray(session.run(feed_of(variant.graph, images))[0], np.float32)

        for images, found in zip(self._batches, in_order(run, self._batches, workers), strict=True):
            parts.append(found[: len(images)])
            if step is not None:
                step(len(images))
        return parts
