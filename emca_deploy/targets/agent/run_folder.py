"""A run's folder on the far side: removed when all is at home, kept with what was measured when the line went down."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from emca_deploy.artifacts import sha256_file
from emca_deploy.errors import WorkerError
from emca_deploy.remote.bootstrap import root

__all__ = ["LEFT", "Run", "cache_root"]

LEFT = "left.json"
KEEP_LEFT_S = 7 * 86400.0


def cache_root() -> Path:
    """Return the folder there that holds all of ours."""
    return root()


class Run:
    """A folder of one run, which is the working folder meanwhile. A context manager: it is gone afterwards, or has what was kept.

    Attributes:
        folder: where it is.
        made: names of files in it that belong to the result.
        until_home: files elsewhere that are kept for the next attempt until home has the result.
    """

    def __init__(self, name: str) -> None:
        self.folder = cache_root() / "runs" / name
        self.made: list[str] = []
        self.until_home: list[Path] = []
        self._lock: IO[str] | None = None
        self._kept = False

    def __enter__(self) -> "Run":
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        _sweep(self.folder.parent, self.folder)
        _sweep_logits(cache_root() / "logits")
        self._kept = (self.folder / LEFT).is_file()
        os.chdir(self.folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.chdir("/")
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)
        assert self._lock is not None
        self._lock.close()

    def place(self, files: Mapping[str, str]) -> None:
        """Put files, by name and sha256, where the request expects them.

        Raises:
            WorkerError: one is missing, or its content is not what its hash says.
        """
        for name, digest in files.items():
            blob, place = cache_root() / "blobs" / digest, self.folder / name
            if not blob.is_file() or sha256_file(blob) != digest:
                blob.unlink(missing_ok=True)
                raise WorkerError(f"{name} is damaged in the far side's cache", "run the same command again: it is sent anew")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            os.link(blob, place)  # not a symbolic link: runtimes look for a model's weights beside the file itself

    def keep(self, document: Mapping[str, Any], files: Mapping[str, Any]) -> None:
        """Keep a result until home has it."""
        (self.folder / LEFT).write_text(json.dumps({"document": document, "files": files}), encoding="utf-8")
        self._kept = True

    def forget(self) -> None:
        """Home has it."""
        self._kept = False
        for path in self.until_home:
            path.unlink(missing_ok=True)


def _sweep(folder: Path, own: Path) -> None:
    """Remove runs that nobody works on any more, and what nobody has come for in a week."""
    for other in folder.iterdir():
        left = other / LEFT
        if other == own or not other.is_dir() or (left.is_file() and time.time() - left.stat().st_mtime < KEEP_LEFT_S):
            continue
        try:
            with (other / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other, ignore_errors=True)
        except OSError:  # at work, or just being made
            continue


def _sweep_logits(folder: Path) -> None:
    """Remove what nobody has gone on with for a week."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if time.time() - path.stat().st_mtime > KEEP_LEFT_S:
            path.unlink(missing_ok=True)
