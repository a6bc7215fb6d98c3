"""Runs a data set through a candidate in its own process, and collects the logits."""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from emca_deploy._progress import Progress
from emca_deploy.arrays import Float32Array, Int64Array
from emca_deploy.artifacts import TensorSpec, sha256_file
from emca_deploy.data.choosing import assumed_for
from emca_deploy.data.files import listing_sha256
from emca_deploy.data.labels import LabelsFound
from emca_deploy.harness.accuracy.logits_store import Kept, LogitsStore
from emca_deploy.harness.measure.feed import Wanted
from emca_deploy.harness.measure.worker import LogitsPart, Worker
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.tasks.flips import ImageNames

__all__ = ["LogitsResult", "LogitsRun"]

MOST_IN_MEMORY_BYTES = 256 << 20
"""Larger logits are mapped from a temporary file; fifty thousand images of a thousand classes stay below."""

COMPANIONS = (".data", "_data")
"""Suffixes that an .onnx file's name has in the name of the file with its weights."""

ChoosePreprocessing = Callable[[TensorSpec, TensorSpec], Preprocessing]
"""Returns the preprocessing for a model, given its input and output."""


@dataclass(frozen=True)
class LogitsResult:
    """A model's logits for a data set.

    Attributes:
        logits: Array (N, classes) float32, in the order of the data set.
        labels: Array (N,) int64, or None for a data set without labels.
        images_per_s: Images per second of the whole run, decoding included; None where nothing had to be run.
        reused: Number of images whose logits come from an earlier run.
    """

    logits: Float32Array
    labels: Int64Array | None
    images_per_s: float | None
    preprocessing: Preprocessing
    names: ImageNames = field(default_factory=ImageNames)
    reused: int = 0

    def indices(self, count: int) -> list[int]:
        """Return the indices of these logits' images in a data set of `count` images."""
        return list(range(count)) if self.names.indices is None else list(self.names.indices)

    def labelled_by(self, found: LabelsFound | None) -> "LogitsResult":
        """Return the same logits with other labels and class names."""
        if found is None:
            return replace(self, labels=None, names=replace(self.names, classes=()))
        labels = found.labels[self.indices(len(found.labels))]
        return replace(self, labels=labels, names=replace(self.names, classes=found.classes))


@dataclass(frozen=True)
class LogitsRun:
    """A data set to run through a candidate.

    Attributes:
        source: Path of the data set; see `data.sources.open_source`.
        preprocessing: Preprocessing, or a function that chooses it.
        limit: Number of images, evenly over the classes; None for all.
        batch_size: Images per call; a model with a fixed batch size keeps its own.
        decoded: Folder for decoded images, which runs of the same images share; see `data.decoded`.
    """

    spec: RunnerSpec
    source: Path
    preprocessing: Preprocessing | ChoosePreprocessing = assumed_for
    limit: int | None = None
    batch_size: int = 16
    decoded: Path | None = None

    def collect(self, progress: Progress | None = None, keep: Path | None = None, worker: Worker | None = None) -> LogitsResult:
        """Run every image, and call `progress` with (images done, images in total).

        `keep` is an .npz file for the logits: only images that an earlier run of the same kind did not leave there are run; see
        `logits_store`. A given worker has loaded the candidate already, and stays open.

        Raises:
            DataError: the data set cannot be read.
            InputError: its images do not fit the model, or `keep` is of another run.
            OutputError: `keep` cannot be written; an older file stays as it was.
            WorkerError: the candidate crashed or hung.
            EmcaError: the candidate's runner raised it.
        """
        if worker is None:
            with Worker(self.spec) as own:
                found = self.collect(progress, keep, own)
                own.finish()
                return found
        opened = worker.opened or worker.open()
        chosen = self.preprocessing
        used = chosen if isinstance(chosen, Preprocessing) else chosen(opened.input, opened.output)
        if keep is None:
            return self._run(worker, used, None, progress)
        with LogitsStore(keep, self._key(opened.runtime, used)) as store:
            kept = store.kept()
            if kept is not None:
                return LogitsResult(kept.logits, kept.labels, None, used, kept.names, len(kept.logits))
            return self._run(worker, used, store, progress)

    def _run(
        self, worker: Worker, used: Preprocessing, store: LogitsStore | None, progress: Progress | None
    ) -> LogitsResult:  # fmt: skip
        rows = _Rows(store.resume() if store is not None else None)
        reused = rows.done
        last: LogitsPart | None = None
        for part in worker.logits(Wanted(self.source.absolute(), used, self.limit, self.batch_size, reused, self.decoded)):
            if part.logits is not None:
                rows.add(part.logits, part.total)
                if store is not None:
                    store.keep(rows.finish())
            if progress is not None:
                progress(part.done, part.total)
            last = part
        assert last is not None
        classes, indices, files = (last.summary[name] for name in ("classes", "indices", "files"))
        names = ImageNames(tuple(classes), None if indices is None else tuple(indices), tuple(files))
        logits = rows.finish()
        if store is not None:
            store.complete(Kept(logits, last.labels, names))
        seconds = last.summary["seconds"]
        rate = (len(logits) - reused) / seconds if len(logits) > reused else None
        return LogitsResult(logits, last.labels, rate, used, names, reused)

    def _key(self, runtime: Mapping[str, Any], used: Preprocessing) -> dict[str, Any]:
        """Return all that the logits depend on; threads and batch size change only their last bits, and are left out."""
        files = [Path(self.spec.artifact + suffix) for suffix in ("", *COMPANIONS)]
        return {
            "artifact": [sha256_file(path) for path in files if path.is_file()] or self.spec.artifact or self.spec.name,
            "backend": self.spec.backend,
            "target": self.spec.target,
            "precision": self.spec.kwargs.get("precision"),
            "runtime version": runtime.get("version"),
            "data set": listing_sha256(self.source),
            "preprocessing": used.identity(),
            "limit": self.limit,
        }


class _Rows:
    """Collects logits in an array that is allocated once; a large one is in a file without a name."""

    def __init__(self, before: Float32Array | None) -> None:
        self._rows = np.empty((0, 0), np.float32) if before is None else before
        self.done = len(self._rows)

    def add(self, logits: Float32Array, total: int) -> None:
        """Append a batch (n, classes) of `total` rows."""
        if len(self._rows) < total:
            before, self._rows = self._rows, _allocate(total, logits.shape[1])
            self._rows[: self.done] = before.reshape(self.done, logits.shape[1])
        self._rows[self.done : self.done + len(logits)] = logits
        self.done += len(logits)

    def finish(self) -> Float32Array:
        """Return all rows."""
        return self._rows[: self.done]


def _allocate(count: int, width: int) -> Float32Array:
    size = count * width * np.dtype(np.float32).itemsize
    if size > MOST_IN_MEMORY_BYTES and hasattr(os, "posix_fallocate"):
        try:
            with tempfile.TemporaryFile() as file:
                os.posix_fallocate(file.fileno(), 0, size)  # so a full disk is an error here, not a signal during a write
                return np.memmap(file, np.float32, "r+", shape=(count, width))
        except OSError:  # no space there: use memory
            pass
    return np.empty((count, width), np.float32)
