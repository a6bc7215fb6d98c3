"""Inside a worker: run a data set through the model and send the logits back as they come."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.artifacts import Preprocessing
from emca_deploy.data.sources import open_source
from emca_deploy.data.subset import choose_indices
from emca_deploy.harness.clock import elapsed_ms
from emca_deploy.harness.spec import Float32Array, LoadedModel

__all__ = ["Wanted", "feed"]

Send = Callable[[dict[str, Any], "npt.NDArray[Any] | None"], None]


class Wanted:
    """What to run.

    Attributes:
        source: where the data set lies.
        preprocessing: how its images become the input.
        limit: how many images, chosen evenly over the classes; None for all.
        batch_size: images a call; a model with a fixed batch size keeps its own.
    """

    def __init__(self, source: str, preprocessing: dict[str, Any], limit: int | None, batch_size: int) -> None:
        self.source = Path(source)
        self.preprocessing = Preprocessing.from_dict(preprocessing)
        self.limit = limit
        self.batch_size = batch_size


def feed(runner: LoadedModel, wanted: Wanted, send: Send) -> None:
    """Send the logits of every image, a batch a message, then the labels and the time.

    Raises:
        DataError: the data set cannot be read.
        InputError: its images do not fit the model.
    """
    source = open_source(wanted.source, wanted.preprocessing)
    limit = len(source) if wanted.limit is None else wanted.limit
    indices = choose_indices(len(source), limit, source.labels)
    fixed = runner.input.shape[0]
    batch_size = fixed if isinstance(fixed, int) else wanted.batch_size
    start_ns, infer_ms, done = perf_counter_ns(), 0.0, 0
    for images, _ in source.batches(batch_size, indices):
        infer_start_ns = perf_counter_ns()
        logits = runner.infer(_padded(images, fixed))[: len(images)]
        infer_ms += elapsed_ms(infer_start_ns)
        done += len(images)
        send({"done": done, "total": len(indices)}, np.asarray(logits, np.float32))
    labels = None if source.labels is None else np.asarray(source.labels[indices], np.int64)
    summary = {"seconds": elapsed_ms(start_ns) / 1e3, "infer_seconds": infer_ms / 1e3}
    send({"done": done, "total": len(indices), "summary": summary}, labels)


def _padded(images: Float32Array, fixed: int | str) -> Float32Array:
    """Fill the last batch of a model with a fixed batch size by repeating its last image."""
    if not isinstance(fixed, int) or len(images) == fixed:
        return images
    return np.concatenate([images, np.repeat(images[-1:], fixed - len(images), axis=0)])
