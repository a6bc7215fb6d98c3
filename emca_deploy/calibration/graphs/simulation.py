"""Computing what a placement does to the logits, on any machine, with ONNX Runtime.

Q/DQ pairs are computed in float, one after the other as ONNX defines them: no runtime's integer kernels, fusions or saturation.
The result depends on the placement alone, and is the same on every processor up to float rounding.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.calibration.graphs.graph_session import batch_size, feed_of, open_graph, prune, run_session
from emca_deploy.canonical.marks import logits_value
from emca_deploy.errors import ModelError

if TYPE_CHECKING:
    from emca_deploy.data.sources import ImageSource

__all__ = ["Simulation"]

Images = npt.NDArray[np.float32]
Step = Callable[[int], None]


class Simulation:
    """Images in memory, and the logits that variants of one model give for them.

    The images asked for are decoded once and held, 4 bytes a value. `path` is the fp32 model, as errors name it, `graph` its own.
    """

    def __init__(self, path: Path, graph: ir.Graph, source: "ImageSource", indices: Sequence[int], threads: int) -> None:
        self._path, self._threads = path, threads
        self._batches = [images for images, _ in source.batches(batch_size(graph, threads), indices)]
        self.samples = len(indices)

    def logits(self, model: ir.Model, step: Step | None = None) -> Images:
        """Return the logits (N, classes) float32 of a variant; `step` is called after each batch with its number of images.

        Raises:
            ModelError: ONNX Runtime does not take the model, or not these images, or its logits are not finite.
        """
        variant = model.clone()
        value = logits_value(variant.graph)
        variant.graph.outputs.clear()
        variant.graph.outputs.append(value)
        prune(variant)
        session = open_graph(variant, str(self._path), self._threads, exact=True)
        parts = []
        for images in self._batches:
            outputs = run_session(session, feed_of(variant.graph, images), str(self._path))
            parts.append(np.asarray(outputs[0], np.float32)[: len(images)])
            if step is not None:
                step(len(images))
        logits = np.concatenate(parts)
        if logits.ndim == 4:  # (N, classes, 1, 1)
            logits = logits.reshape(len(logits), -1)
        if logits.ndim != 2 or not np.isfinite(logits).all():
            raise ModelError(f"{self._path}: its output is no finite logits (N, classes)", "name an image classifier")
        return logits
