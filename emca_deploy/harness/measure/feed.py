"""Runs a data set through the model inside a worker, and sends the logits back batch by batch."""

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
from emca_deploy.harness.spec import LoadedModel
from emca_deploy.tasks.logits import logits_of

__all__ = ["Wanted", "feed"]

FEWEST_THREADS = 2
MOST_NAME_CHARACTERS = 1 << 23
"""Limit for all images' names together: a character may take six bytes in a message, which must stay below 64 MiB."""

Send = Callable[[dict[str, Any], "npt.NDArray[Any] | None"], None]


@dataclass(frozen=True)
class Wanted:
    """The images to run, and how.

    Attributes:
        limit: Number of images, chosen evenly over the classes; None for all.
        batch_size: Images per call; a model with a fixed batch size keeps its own.
        start: Number of images that an earlier run has done.
        decoded: Folder for decoded images, see `data.decoded`; None decodes them without keeping them.
    """

    source: Path
    preprocessing: Preprocessing
    limit: int | None
    batch_size: int
    start: int = 0
    decoded: Path | None = None


def feed(runner: LoadedModel, wanted: Wanted, send: Send) -> None:
    """Send the logits of every image, one batch per message, then the labels and the time.

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
    start_ns, infer_ns, done = perf_counter_ns(), 0, wanted.start
    # Decoding an image takes one thread, and idle threads sleep.
    threads = max(FEWEST_THREADS, cpu_info().logical_cores)
    for images, _ in source.batches(batch_size, indices[done:], threads=threads):
        infer_start_ns = perf_counter_ns()
        logits = runner.infer(_padded(images, fixed))[: len(images)]
        if runner.softmax:
            logits = logits_of(logits)
        infer_ns += perf_counter_ns() - infer_start_ns
        done += len(images)
        send({"done": done, "total": len(indices)}, np.asarray(logits, np.float32))
    seconds = (perf_counter_ns() - start_ns) / 1e9
    labels = None if source.labels is None else np.asarray(source.labels[indices], np.int64)
    summary = {"seconds": seconds, "infer_seconds": infer_ns / 1e9, **_names(source, indices)}
    send({"done": done, "total": len(indices), "summary": summary}, labels)


def _names(source: ImageSource, indices: list[int]) -> dict[str, Any]:
    """Return the names of classes and images; without the images' names where these would fill a message."""
    files = [source.item_name(index) for index in indices]
    fits = sum(map(len, files)) <= MOST_NAME_CHARACTERS
    everything = len(indices) == len(source)
    return {"classes": source.classes, "indices": None if everything else indices, "files": files if fits else []}


def _padded(images: Float32Array, fixed: int | str) -> Float32Array:
    """Fill the last batch for a model with a fixed batch size by repeating the last image."""
    if not isinstance(fixed, int) or len(images) == fixed:
        return images
    return np.concatenate([images, np.repeat(images[-1:], fixed - len(images), axis=0)])
