"""Inside a worker: run a data set through the model and send the logits back as they come."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy._machine import cpu_info
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import Preprocessing
from emca_deploy.data.decoded import Decoded
from emca_deploy.data.sources import ImageSource, choose_indices, open_source
from emca_deploy.harness.clock import elapsed_ms
from emca_deploy.harness.spec import LoadedModel
from emca_deploy.tasks.logits import logits_of

__all__ = ["Wanted", "feed"]

FEWEST_THREADS = 2
MOST_NAME_CHARACTERS = 1 << 23
"""Of all images' names together: one may become six bytes in a message, which has to stay below 64 MiB."""

Send = Callable[[dict[str, Any], "npt.NDArray[Any] | None"], None]


@dataclass(frozen=True)
class Wanted:
    """What to run.

    Attributes:
        limit: how many images, chosen evenly over the classes; None for all.
        batch_size: images a call; a model with a fixed batch size keeps its own.
        start: how many of the images an earlier run has done.
        decoded: a folder for decoded images, see `data.decoded`; None decodes them without keeping them.
    """

    source: Path
    preprocessing: Preprocessing
    limit: int | None
    batch_size: int
    start: int = 0
    decoded: Path | None = None


def feed(runner: LoadedModel, wanted: Wanted, send: Send) -> None:
    """Send the logits of every image, a batch a message, then the labels and the time.

    Raises:
        DataError: the data set cannot be read.
        InputError: its images do not fit the model.
    """
    source = open_source(wanted.source, wanted.preprocessing)
    limit = len(source) if wanted.limit is None else wanted.limit
    indices = choose_indices(len(source), limit, source.labels)
    if wanted.decoded is not None and not source.finished:
        source = Decoded(source, wanted.decoded, indices)
    fixed = runner.input.shape[0]
    batch_size = fixed if isinstance(fixed, int) else wanted.batch_size
    start_ns, infer_ms, done = perf_counter_ns(), 0.0, wanted.start
    for images, _ in source.batches(batch_size, indices[done:], threads=_decoding_threads()):
        infer_start_ns = perf_counter_ns()
        logits = runner.infer(_padded(images, fixed))[: len(images)]
        if runner.softmax:
            logits = logits_of(logits)
        infer_ms += elapsed_ms(infer_start_ns)
        done += len(images)
        send({"done": done, "total": len(indices)}, np.asarray(logits, np.float32))
    seconds = elapsed_ms(start_ns) / 1e3
    labels = None if source.labels is None else np.asarray(source.labels[indices], np.int64)
    summary = {"seconds": seconds, "infer_seconds": infer_ms / 1e3, **_names(source, indices)}
    send({"done": done, "total": len(indices), "summary": summary}, labels)


def _decoding_threads() -> int:
    """Return as many as there are cores: decoding one image is one thread's work, and those with nothing to do sleep."""
    return max(FEWEST_THREADS, cpu_info().logical_cores)


def _names(source: ImageSource, indices: list[int]) -> dict[str, Any]:
    """Return what the data set calls the images and its classes; without the files' names where these fill a message."""
    files = [source.item_name(index) for index in indices]
    fits = sum(map(len, files)) <= MOST_NAME_CHARACTERS
    everything = len(indices) == len(source)
    return {"classes": source.classes, "indices": None if everything else indices, "files": files if fits else []}


def _padded(images: Float32Array, fixed: int | str) -> Float32Array:
    """Fill the last batch of a model with a fixed batch size by repeating its last image."""
    if not isinstance(fixed, int) or len(images) == fixed:
        return images
    return np.concatenate([images, np.repeat(images[-1:], fixed - len(images), axis=0)])
