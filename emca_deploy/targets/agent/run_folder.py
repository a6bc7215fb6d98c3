"""A run's folder on the agent's machine: removed once the report is fetched, kept if the connection is lost."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from emca_deploy.artifacts import sha256_file
from emca_deploy.errors import WorkerError
from emca_deploy.remote.protocol import cache_root

__all__ = ["LEFT", "Run"]

LEFT = "left.json"
KEEP_LEFT_S = 7 * 86400.0


class Run:
    """The folder of one run, and its working directory. A context manager, which removes it unless a report is kept in it.

    `made` are the files of the report by name, `until_fetched` files elsewhere that are kept until the report is fetched.
    `folder` is the folder of a caller who does not enter the run.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.folder = cache_root() / "runs" / name if folder is None else folder
        self.made: dict[str, Path] = {}
        self.until_fetched: list[Path] = []
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

    def __exit__(self, *_: object) -> None:
        os.chdir("/")
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)
        assert self._lock is not None
        self._lock.close()

    def link(self, files: Mapping[str, str]) -> None:
        """Link files, by name and sha256, to where the request expects them.

        Raises:
            WorkerError: a file is missing or damaged.
        """
        for name, digest in files.items():
            blob, path = cache_root() / "blobs" / digest, self.folder / name
            if not blob.is_file() or sha256_file(blob) != digest:
                blob.unlink(missing_ok=True)
                raise WorkerError(f"{name} is damaged in the remote cache", "run the same command again; it sends the file again")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            os.link(blob, path)  # not a symbolic link: runtimes look for a model's weights next to the file itself

    def keep(self, document: Mapping[str, Any], files: Mapping[str, Any]) -> None:
        """Keep a report until it is fetched."""
        (self.folder / LEFT).write_text(json.dumps({"document": document, "files": files}), encoding="utf-8")
        self._kept = True

    def forget(self) -> None:
        """Drop what is kept, because the report has been fetched."""
        self._kept = False
        for path in self.until_fetched:
            path.unlink(missing_ok=True)


def _sweep(folder: Path, own: Path) -> None:
    """Remove runs that have ended, and reports that are a week old."""
    for other in folder.iterdir():
        left = other / LEFT
        if other == own or not other.is_dir() or (left.is_file() and time.time() - left.stat().st_mtime < KEEP_LEFT_S):
            continue
        try:
            with (other / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other, ignore_errors=True)
        except OSError:  # it is running or starting
            continue


def _sweep_logits(folder: Path) -> None:
    """Remove logits of validations that have not been resumed for a week."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if time.time() - path.stat().st_mtime > KEEP_LEFT_S:
            path.unlink(missing_ok=True)
