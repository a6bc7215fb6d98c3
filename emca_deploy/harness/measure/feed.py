"""Runs a data set through the model inside a worker, and sends its answers back batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from emca_deploy._machine import cpu_info
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import Preprocessing
from emca_deploy.data.decoded import Decoded
from emca_deploy.data.sources import ImageSource, choose_indices, open_source
from emca_deploy.harness.spec import LoadedModel
from emca_deploy.tasks.registry import TASKS
from emca_deploy.tasks.task import Arrays, Batch

__all__ = ["Part", "Wanted", "answered", "feed", "image_names"]

FEWEST_THREADS = 2
MOST_NAME_CHARACTERS = 1 << 23
"""Limit for all images' names together: a character may take six bytes in a message, which must stay below 64 MiB."""

Send = Callable[[dict[str, Any], Arrays | None], None]


@dataclass(frozen=True)
class Wanted:
    """The images to run, and how.

    Attributes:
        limit: Number of images, chosen evenly over the classes; None for all.
        batch_size: Images per call; a model with a fixed batch size keeps its own.
        start: Number of images that an earlier run has done.
        images: Names of the images to run, in this order; None for all of the data set.
        decoded: Folder for decoded images, see `data.decoded`; None decodes them without keeping them.
    """

    source: Path
    preprocessing: Preprocessing
    limit: int | None
    batch_size: int
    start: int = 0
    images: tuple[str, ...] | None = None
    decoded: Path | None = None


def feed(name: str, runner: LoadedModel, wanted: Wanted, send: Send, artifact: Path = Path()) -> None:
    """Send the answers of the model `name` for every image, one batch per message, then the labels and the time.

    `artifact` is the file of the model.

    Raises:
        DataError: the data set cannot be read.
        InputError: its images do not fit the model.
        ModelError: an output of the model cannot be what it should.
    """
    source = open_source(wanted.source, wanted.preprocessing, images=wanted.images)
    limit = len(source) if wanted.limit is None else wanted.limit
    indices = choose_indices(len(source), limit, source.labels)
    if wanted.decoded is not None and not source.finished:
        source = Decoded(source, wanted.decoded, indices)
    start_ns, infer_ns, done = perf_counter_ns(), 0, wanted.start
    for part in answered(name, runner, source, indices[done:], wanted.batch_size, artifact):
        infer_ns += part.infer_ns
        done += len(part.indices)
        send({"done": done, "total": len(indices)}, part.arrays)
    seconds = (perf_counter_ns() - start_ns) / 1e9
    labels = None if source.labels is None else np.asarray(source.labels[indices], np.int64)
    summary = {"seconds": seconds, "infer_seconds": infer_ns / 1e9, **image_names(source, indices)}
    send({"done": done, "total": len(indices), "summary": summary}, None if labels is None else {"labels": labels})


@dataclass(frozen=True)
class Part:
    """The answers for one batch, by the images' indices in the data set, and the time of the call in ns."""

    indices: Sequence[int]
    arrays: Arrays
    infer_ns: int


def answered(
    name: str, runner: LoadedModel, source: ImageSource, indices: Sequence[int], batch_size: int, artifact: Path
) -> Iterator[Part]:
    """Yield the answers of an open runner for images of a source, batch by batch; the next images are decoded meanwhile.

    Raises:
        DataError: an image cannot be read.
        InputError: the images do not fit the model.
        ModelError: an output of the model cannot be what it should.
    """
    task = TASKS[runner.task]
    host_part = task.host_part(name, artifact, runner.input, runner.output)
    fixed, done = runner.input.shape[0], 0
    # Decoding an image takes one thread, and idle threads sleep.
    threads = max(FEWEST_THREADS, cpu_info().logical_cores)
    for images, _ in source.batches(fixed if isinstance(fixed, int) else batch_size, indices, threads=threads):
        start_ns = perf_counter_ns()
        main = runner.infer(_padded(images, fixed))[: len(images)]
        infer_ns = perf_counter_ns() - start_ns
        places = indices[done : done + len(images)]
        outputs = runner.answers() if host_part is None else host_part(runner.answers())
        done += len(images)
        yield Part(places, task.record(Batch(name, main, runner.softmax, outputs, source, places)), infer_ns)


def image_names(source: ImageSource, indices: list[int]) -> dict[str, Any]:
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
