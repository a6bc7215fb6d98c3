"""The folder of a sweep: its lock, the files of finished cells, and the index."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from emca_deploy.artifacts import write_json
from emca_deploy.atomic import make_folder
from emca_deploy.errors import InputError, OutputError
from emca_deploy.results.codec import read_json, to_json
from emca_deploy.results.sweep import CellResult, SweepReport, SweepRow, read_cell, row_of

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None  # type: ignore[assignment]

__all__ = ["INDEX", "SweepFolder"]

INDEX, LOCK = "sweep.json", "sweep.lock"


class SweepFolder:
    """The folder of a sweep, which need not exist before `locked`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._index: dict[str, SweepRow] | None = None

    @property
    def shared(self) -> Path:
        """The folder of files that several cells use."""
        return self.place / "shared"

    @property
    def digests(self) -> Path:
        """The file of remembered digests."""
        return self.place / "digests.json"

    def cell(self, key: str) -> Path:
        """Return the file of a cell."""
        return self.place / "cells" / f"{key}.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and hold it for this process; the lock ends with the process, however that ends.

        Raises:
            OutputError: the folder cannot be made or written to.
            InputError: another sweep runs in it.
        """
        for folder in (self.place, self.place / "cells", self.shared):
            make_folder(folder)
        try:
            descriptor = os.open(self.place / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as exc:
            raise OutputError(f"{self.place}: cannot be written: {exc.strerror}", "choose a folder you can write to") from exc
        try:
            self._lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise InputError(
                f"{self.place}: another sweep runs in it (process {holder})", "wait for it, or name another folder"
            ) from exc
        except OSError:
            return  # the file system has no locks
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def row(self, key: str) -> SweepRow | None:
        """Return a finished cell's row, or None for a cell that has no result.

        Raises:
            InputError: the cell's file is damaged.
        """
        path = self.cell(key)
        if not path.exists():
            return None
        known = self._rows().get(key)
        return known if known is not None and known.status == "done" else row_of(read_cell(path))

    def _rows(self) -> dict[str, SweepRow]:
        """Return the rows of the last index, which spares reading every cell's samples."""
        if self._index is None:
            self._index = {}
            with suppress(InputError):
                report = read_json(SweepReport, self.place / INDEX, "an index", "")
                self._index = {row.key: row for row in report.cells}
        return self._index

    def results(self) -> tuple[SweepReport, dict[str, CellResult]]:
        """Return the index, and the result of each cell that is done or failed by its key.

        Raises:
            InputError: a file is missing or damaged.
        """
        report = read_json(SweepReport, self.place / INDEX, "an index of a sweep", "run the sweep again")
        return report, {row.key: read_cell(self.cell(row.key)) for row in report.cells if row.status != "pending"}

    def keep(self, result: CellResult) -> SweepRow:
        """Write a cell's result, whole or not at all, and return its row.

        Raises:
            OutputError: the file cannot be written.
        """
        write_json(self.cell(result.key), to_json(result))
        row = row_of(result)
        self._rows()[result.key] = row
        return row

    def write_index(self, report: SweepReport) -> None:
        """Write the index.

        Raises:
            OutputError: the file cannot be written.
        """
        write_json(self.place / INDEX, to_json(report))
