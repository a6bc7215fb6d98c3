"""Runs a data set through a candidate in its own process, and collects its answers."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from emca_deploy._progress import Progress
from emca_deploy.arrays import Float32Array, Int64Array
from emca_deploy.artifacts import TensorSpec, sha256_file
from emca_deploy.data.choosing import assumed_for
from emca_deploy.data.files import listing_sha256
from emca_deploy.data.labels import LabelsFound
from emca_deploy.errors import ModelError
from emca_deploy.harness.accuracy.logits_store import Kept, LogitsStore
from emca_deploy.harness.measure.feed import Wanted
from emca_deploy.harness.measure.worker import LogitsPart, Worker
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.requests import TaskName
from emca_deploy.tasks.detections import Detections
from emca_deploy.tasks.flips import ImageNames
from emca_deploy.tasks.registry import TASKS
from emca_deploy.tasks.task import Answers

__all__ = ["LogitsResult", "LogitsRun", "data_key"]

COMPANIONS = (".data", "_data")
"""Suffixes that an .onnx file's name has in the name of the file with its weights."""

ChoosePreprocessing = Callable[[TensorSpec, TensorSpec], Preprocessing]
"""Returns the preprocessing for a model, given its input and output."""


@dataclass(frozen=True)
class LogitsResult:
    """A model's answers for a data set.

    Attributes:
        answers: Logits (N, classes) float32 of a classifier, or detections of a detector, in the order of the data set.
        labels: Array (N,) int64, or None for a data set without labels.
        images_per_s: Images per second of the whole run, decoding included; None where nothing had to be run.
        reused: Number of images whose answers come from an earlier run.
    """

    answers: Answers
    labels: Int64Array | None
    images_per_s: float | None
    preprocessing: Preprocessing
    names: ImageNames = field(default_factory=ImageNames)
    reused: int = 0

    @property
    def logits(self) -> Float32Array:
        """The logits of a classifier, (N, classes) float32.

        Raises:
            ModelError: the model is a detector.
        """
        if isinstance(self.answers, Detections):
            raise ModelError("the model is a detector, which has no logits", "name an image classifier, or give --annotations")
        return self.answers

    @property
    def detections(self) -> Detections:
        """The detections of a detector.

        Raises:
            ModelError: the model is a classifier.
        """
        if not isinstance(self.answers, Detections):
            raise ModelError("the model is a classifier, which has no detections", "name a detector")
        return self.answers

    def indices(self, count: int) -> list[int]:
        """Return the indices of these images in a data set of `count` images."""
        return list(range(count)) if self.names.indices is None else list(self.names.indices)

    def labelled_by(self, found: LabelsFound | None) -> "LogitsResult":
        """Return the same answers with other labels and class names."""
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
        images: Names of the images to run, in this order; None for all of the data set.
        task: Task that the candidate must have.
        batch_size: Images per call; a model with a fixed batch size keeps its own.
        decoded: Folder for decoded images, which runs of the same images share; see `data.decoded`.
    """

    spec: RunnerSpec
    source: Path
    preprocessing: Preprocessing | ChoosePreprocessing = assumed_for
    limit: int | None = None
    batch_size: int = 16
    decoded: Path | None = None
    images: tuple[str, ...] | None = None
    task: TaskName = "classification"

    def collect(self, progress: Progress | None = None, keep: Path | None = None, worker: Worker | None = None) -> LogitsResult:
        """Run every image, and call `progress` with (images done, images in total).

        `keep` is an .npz file for the answers: only images that an earlier run of the same kind did not leave there are run; see
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
        self._check_task(opened.task)
        chosen = self.preprocessing
        used = chosen if isinstance(chosen, Preprocessing) else chosen(opened.input, opened.output)
        if keep is None:
            return self._run(worker, used, None, progress)
        with LogitsStore(keep, self._key(opened.runtime, used), TASKS[self.task]) as store:
            kept = store.kept()
            if kept is not None:
                return LogitsResult(kept.answers, kept.labels, None, used, kept.names, len(kept.answers))
            return self._run(worker, used, store, progress)

    def _check_task(self, task: TaskName) -> None:
        if task != self.task:
            own, wanted = TASKS[task], TASKS[self.task]
            raise ModelError(f"{self.spec.name}: is a {own.noun}, not a {wanted.noun}", wanted.remedy)

    def _run(
        self, worker: Worker, used: Preprocessing, store: LogitsStore | None, progress: Progress | None
    ) -> LogitsResult:  # fmt: skip
        rows = TASKS[self.task].collector(store.resume() if store is not None else None)
        reused = rows.done
        last: LogitsPart | None = None
        wanted = Wanted(self.source.absolute(), used, self.limit, self.batch_size, reused, self.images, self.decoded)
        for part in worker.logits(wanted):
            if part.arrays:
                rows.add(part.arrays, part.total)
                if store is not None:
                    store.keep(rows.finish)
            if progress is not None:
                progress(part.done, part.total)
            last = part
        assert last is not None
        classes, indices, files = (last.summary[name] for name in ("classes", "indices", "files"))
        names = ImageNames(tuple(classes), None if indices is None else tuple(indices), tuple(files))
        answers = rows.finish()
        if store is not None:
            store.complete(Kept(answers, last.labels, names))
        seconds = last.summary["seconds"]
        rate = (len(answers) - reused) / seconds if len(answers) > reused else None
        return LogitsResult(answers, last.labels, rate, used, names, reused)

    def _key(self, runtime: Mapping[str, Any], used: Preprocessing) -> dict[str, Any]:
        """Return all that the answers depend on; threads and batch size change only their last bits, and are left out."""
        files = [Path(self.spec.artifact + suffix) for suffix in ("", *COMPANIONS)]
        return {
            "artifact": [sha256_file(path) for path in files if path.is_file()] or self.spec.artifact or self.spec.name,
            "backend": self.spec.backend,
            "target": self.spec.target,
            "precision": self.spec.kwargs.get("precision"),
            "runtime version": runtime.get("version"),
            "preprocessing": used.identity(),
            **data_key(self.source, self.limit, self.images),
        }


def data_key(source: Path, limit: int | None, images: tuple[str, ...] | None) -> dict[str, Any]:
    """Return what answers depend on of the data set, as JSON values; the arguments are as in `LogitsRun`."""
    named = {} if images is None else {"images": sha256(json.dumps(images).encode()).hexdigest()}
    return {"data set": listing_sha256(source), "limit": limit, **named}
