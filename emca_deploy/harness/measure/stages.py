"""Runs images one by one from the stored file to the answer, and times each stage."""

from collections.abc import Iterator
from io import BytesIO
from itertools import cycle, pairwise
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from emca_deploy.arrays import Int64Array
from emca_deploy.data.choosing import assumed_for
from emca_deploy.data.preprocess import decode, normalize, to_pixels
from emca_deploy.data.sources import choose_indices, open_source
from emca_deploy.errors import DataError, InputError
from emca_deploy.harness.clock import no_garbage_collection
from emca_deploy.harness.measure.real_images import MOST_IMAGES
from emca_deploy.harness.spec import LoadedModel, RunnerSpec
from emca_deploy.results.load import STAGES
from emca_deploy.tasks.registry import TASKS
from emca_deploy.tasks.task import Batch

__all__ = ["Chain"]


class Chain:
    """The stages from an image file in memory to the answer, on one thread; images of the spec's data set take turns.

    Raises:
        DataError: the data set cannot be read, or has no image files.
        InputError: the model takes more than one image at once.
    """

    def __init__(self, spec: RunnerSpec, runner: LoadedModel) -> None:
        if runner.input.shape[0] not in (1, "batch") and isinstance(runner.input.shape[0], int):
            raise InputError(f"{spec.name}: takes {runner.input.shape[0]} images at once", "export with --batch 1 or dynamic")
        if Path(spec.data).suffix.lower() == ".npz":
            raise DataError(f"{spec.data}: has no image files to decode", "name a folder of images, or a .zip of one")
        self._name, self._runner, self._task = spec.name, runner, TASKS[runner.task]
        self._preprocessing = spec.preprocessing or assumed_for(runner.input, runner.output)
        self._source = open_source(Path(spec.data), self._preprocessing)
        indices = choose_indices(len(self._source), MOST_IMAGES, self._source.labels)
        self._host_part = self._task.host_part(spec.name, Path(str(spec.kwargs.get("artifact", ""))), runner.input, runner.output)
        self._files = {index: self._source.content(index) for index in indices}
        self._turns: Iterator[int] = cycle(np.random.default_rng(0).permutation(indices).tolist())

    def run(self, seconds: float, max_images: int) -> Int64Array:
        """Return the nanoseconds of each stage of each image, (images, stages) int64, after one unmeasured image."""
        rows: list[list[int]] = []
        self._one()
        with no_garbage_collection():
            end_ns = perf_counter_ns() + int(seconds * 1e9)
            while not rows or (perf_counter_ns() < end_ns and len(rows) < max_images):
                rows.append(self._one())
        return np.array(rows, np.int64).reshape(-1, len(STAGES))

    def _one(self) -> list[int]:
        index = next(self._turns)
        name = self._source.item_name(index)
        times = [perf_counter_ns()]
        image = decode(BytesIO(self._files[index]), name, self._preprocessing.exif)
        times.append(perf_counter_ns())
        pixels = to_pixels(image, self._preprocessing, name)
        times.append(perf_counter_ns())
        ready = normalize(pixels, self._preprocessing)[None]
        times.append(perf_counter_ns())
        native = self._runner.to_native(ready)
        times.append(perf_counter_ns())
        main = self._runner.infer(native)
        times.append(perf_counter_ns())
        outputs = self._runner.answers()
        if self._host_part is not None:
            outputs = dict(self._host_part(outputs))
        self._task.record(Batch(self._name, main[:1], self._runner.softmax, outputs, self._source, [index]))
        times.append(perf_counter_ns())
        return [after - before for before, after in pairwise(times)]
