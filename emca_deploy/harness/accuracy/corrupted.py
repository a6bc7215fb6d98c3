"""Runs corrupted images through a candidate and its reference: each image is made once, and both get the same bytes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from emca_deploy._progress import Progress
from emca_deploy.arrays import Int64Array
from emca_deploy.data.corruptions.corruption import Corruption
from emca_deploy.data.decoded import Decoded, room_for_decoded
from emca_deploy.data.sources import ImageSource
from emca_deploy.harness.accuracy.corruption_cells import Cell, Cells
from emca_deploy.harness.measure.feed import Wanted
from emca_deploy.harness.measure.worker import Worker
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.corruptions import CorruptionReport
from emca_deploy.tasks.logits import predicted

__all__ = ["Answering", "CorruptedRun"]

PIECE_BYTES = 16 * 2**20
"""Most bytes of corrupted images in one file."""


@dataclass(frozen=True)
class Answering:
    """One side of the comparison: a candidate, and how images become its input."""

    spec: RunnerSpec
    preprocessing: Preprocessing


@dataclass(frozen=True)
class CorruptedRun:
    """Images to corrupt.

    Images are corrupted after they are resized and cropped, and before they are normalized.

    Attributes:
        source: Images, which must not be the network's input already.
        order: Indices of the images, (N,) int64, in the order in which they are run; each beginning of it is a fair sample.
        labels: Their labels, (N,) int64.
        classes: Names of the classes; may be empty.
        outputs: Number of classes.
        kinds: Kinds of corruption.
        max_drop: Limit of the drop in points that decides a cell; None decides by the width of its interval.
        batch: Images per call.
    """

    source: ImageSource
    order: Int64Array
    labels: Int64Array
    classes: tuple[str, ...]
    outputs: int
    kinds: tuple[Corruption, ...]
    max_drop: float | None = None
    batch: int = 16

    def compare(self, own: Answering, reference: Answering, progress: Progress | None = None) -> CorruptionReport:
        """Run every cell until it is decided, and call `progress` with (images done, images in total).

        All cells get the images of a look before any gets more. Images that a decided cell leaves out count as done.

        Raises:
            DataError: an image cannot be read.
            WorkerError: a candidate crashed or hung.
            EmcaError: a candidate's runner raised it.
        """
        cells = Cells(self.kinds, self.labels, self.outputs, self.max_drop)
        total, before = len(cells.all) * len(self.order), 0
        with TemporaryDirectory(prefix="emca-corrupted-") as name, Worker(own.spec) as ours, Worker(reference.spec) as theirs:
            ours.open()
            theirs.open()
            with _Maker(self, Path(name)) as maker:
                for look in cells.looks:
                    waiting = cells.open()
                    done = total - sum(len(self.order) - cell.images for cell in waiting)
                    for cell, path in maker.pieces(waiting, range(before, look)):
                        answers = [self._classes(worker, path, side) for worker, side in ((ours, own), (theirs, reference))]
                        path.unlink()
                        cells.add(cell, *answers)
                        done += len(answers[0])
                        if progress is not None:
                            progress(done, total)
                    before = look
            ours.finish()
            theirs.finish()
        return cells.report(self.classes)

    def _classes(self, worker: Worker, path: Path, side: Answering) -> Int64Array:
        """Return the predicted classes for the images of a file, (n,) int64; -1 where logits are not finite."""
        used = replace(side.preprocessing, resize="none")  # they have the network's size already
        parts = worker.logits(Wanted(path, used, None, self.batch))
        logits = np.concatenate([part.arrays["logits"] for part in parts if part.arrays])
        return np.where(np.isfinite(logits).all(axis=1), predicted(logits), -1)


class _Maker:
    """Makes files of corrupted images, one ahead of what the candidates run. A context manager."""

    def __init__(self, run: CorruptedRun, folder: Path) -> None:
        self._run, self._folder, self._made = run, folder, 0
        self._room = room_for_decoded(folder, len(run.order), run.source.preprocessing)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="corrupt")
        self._source = run.source

    def __enter__(self) -> "_Maker":
        kept = self._room.__enter__()
        if kept is not None:
            self._source = Decoded(self._source, kept, self._run.order.tolist())
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._room.__exit__(None, None, None)

    def pieces(self, cells: Sequence[Cell], places: range) -> Iterator[tuple[Cell, Path]]:
        """Yield each cell with files of its images at these places of the order."""
        size = self._source.preprocessing
        step = max(1, PIECE_BYTES // (3 * size.height * size.width))
        jobs = [(cell, places[start : start + step]) for cell in cells for start in range(0, len(places), step)]
        files = _one_ahead(self._pool, (partial(self._file, *job) for job in jobs))
        for (cell, _), path in zip(jobs, files, strict=True):
            yield cell, path

    def _file(self, cell: Cell, places: range) -> Path:
        """Write the images of a cell at some places; returns the file."""
        self._made += 1
        path = self._folder / f"{self._made}.npz"
        indices = self._run.order[places.start : places.stop].tolist()
        np.savez(path, images=np.stack([cell.kind.corrupted(self._image(one), cell.strength, one) for one in indices]))
        return path

    def _image(self, index: int) -> npt.NDArray[np.uint8]:
        """Return an image without corruption in RGB, (height, width, 3) uint8; gray ones have three equal channels."""
        pixels = np.rint(self._source.pixels(index)).astype(np.uint8)
        if self._source.preprocessing.channels == "bgr":
            pixels = pixels[::-1]
        return np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0))


def _one_ahead(pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], Path]]) -> Iterator[Path]:
    """Yield the results of jobs in order; the next one runs meanwhile."""
    waiting = None
    for job in jobs:
        following = pool.submit(job)
        if waiting is not None:
            yield waiting.result()
        waiting = following
    if waiting is not None:
        yield waiting.result()
