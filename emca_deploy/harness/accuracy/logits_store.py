"""Keeps a model's answers in an .npz file, from which an interrupted run can continue.

An unfinished run has the same form in `FILE.npz.partial`, which is rewritten every few seconds and when the run is interrupted,
and removed once `FILE.npz` is complete.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from emca_deploy.arrays import Int64Array
from emca_deploy.atomic import atomic_write, check_writable
from emca_deploy.errors import DataError, InputError, OutputError
from emca_deploy.npz import read_arrays
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.codec import from_json
from emca_deploy.tasks.flips import ImageNames
from emca_deploy.tasks.registry import TASKS
from emca_deploy.tasks.task import Answers, Task

__all__ = ["Kept", "LogitsStore", "partial_path", "read_kept"]

SAVE_EVERY_S = 5.0
"""The most that a killed run loses; one that is interrupted or fails loses nothing."""

MOST_SAVING = 0.1
"""Largest share of a run's time for saving: large files are saved less often."""


@dataclass(frozen=True)
class Kept:
    """A complete run: a model's answers for N images, and labels (N,) int64 or None."""

    answers: Answers
    labels: Int64Array | None
    names: ImageNames


def partial_path(path: Path) -> Path:
    """Return the path of an unfinished run's answers."""
    return path.with_name(path.name + ".partial")


class LogitsStore:
    """A run's answers in a file. A context manager: when an exception leaves it, it saves the answers so far.

    The key has all that the answers depend on, as JSON values: only answers with the same key are reused. Methods that read raise
    InputError where a file is damaged, of another kind or of another run; methods that write raise OutputError.

    Raises:
        InputError: the file has another suffix.
    """

    def __init__(self, path: Path, key: Mapping[str, Any], task: Task = TASKS["classification"]) -> None:
        if path.suffix.lower() != ".npz":
            raise InputError(f"{path}: not an .npz file", "give a file name that ends with .npz")
        self.path = path
        self.partial = partial_path(path)
        self._key: dict[str, Any] = json.loads(json.dumps(key))
        self._task = task
        self._unsaved: Callable[[], Answers] | None = None
        self._next_s = monotonic() + SAVE_EVERY_S

    def __enter__(self) -> "LogitsStore":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self._unsaved is not None and not isinstance(error, OutputError):
            self._save(self._unsaved())

    def kept(self) -> Kept | None:
        """Return the complete run in the file, or None where there is no file yet."""
        found = self._read(self.path)
        if found is not None:
            self.partial.unlink(missing_ok=True)  # left where a run was killed just after it was complete
        return found

    def resume(self) -> Answers | None:
        """Return the answers of an unfinished run, or None; check that the file can be written."""
        check_writable(self.path, "create its folder first, or write to another place")
        found = self._read(self.partial)
        return None if found is None else found.answers

    def keep(self, answers: Callable[[], Answers]) -> None:
        """Take a function that returns the answers so far, and save them if the last time is long ago."""
        self._unsaved = answers
        began_s = monotonic()
        if began_s >= self._next_s:
            self._save(answers())
            ended_s = monotonic()
            self._next_s = ended_s + max(SAVE_EVERY_S, (ended_s - began_s) / MOST_SAVING)

    def complete(self, kept: Kept) -> None:
        """Write the complete run to the file, and remove the unfinished one."""
        self._write(self.path, kept)
        self._unsaved = None
        self.partial.unlink(missing_ok=True)

    def _save(self, answers: Answers) -> None:
        try:
            self._write(self.partial, Kept(answers, None, ImageNames()))
        except OutputError as exc:
            remedy = "free space and run the same command again, which continues from the last save; or write to another place"
            raise OutputError(exc.problem, remedy) from exc

    def _write(self, path: Path, kept: Kept) -> None:
        names = kept.names
        arrays: dict[str, Any] = {**self._task.arrays(kept.answers), "key": np.array(json.dumps(self._key))}
        arrays |= {"files": np.array(names.files, np.str_), "classes": np.array(names.classes, np.str_)}
        if kept.labels is not None:
            arrays["labels"] = kept.labels
        if names.indices is not None:
            arrays["indices"] = np.array(names.indices, np.int64)
        with atomic_write(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)

    def _read(self, path: Path) -> Kept | None:
        if not path.exists():
            return None
        return read_kept(path, self._task, self._check)[0]

    def _check(self, path: Path, key: Mapping[str, Any]) -> None:
        names = sorted({*key, *self._key})
        other = [name for name in names if _comparable(name, key.get(name)) != _comparable(name, self._key.get(name))]
        if other:
            problem = f"{path}: has the logits of another run, which differs in: {', '.join(other)}"
            raise InputError(problem, "give another file")


def read_kept(
    path: Path,
    task: Task = TASKS["classification"],
    check: Callable[[Path, Mapping[str, Any]], None] = lambda path, key: None,
) -> tuple[Kept, dict[str, Any]]:
    """Return the run in a file, and its key, after `check` accepted it.

    Raises:
        InputError: the file cannot be read, or is of another kind.
    """
    try:
        arrays = read_arrays(path)
        key = dict(json.loads(str(arrays["key"])))
        check(path, key)
        answers = task.answers(arrays)
        labels = np.asarray(arrays["labels"], np.int64) if "labels" in arrays else None
        indices = tuple(map(int, arrays["indices"])) if "indices" in arrays else None
        files, classes = (tuple(map(str, arrays[name])) for name in ("files", "classes"))
        _check_shapes(len(answers), labels, indices, files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        problem = f"{path}: not an emca-deploy file of logits: {exc}"
        raise InputError(problem, "give another file, or remove this one to run all images again") from exc
    return Kept(answers, labels, ImageNames(classes, indices, files)), key


def _comparable(name: str, value: Any) -> Any:
    """Return a part of a key in a form in which preprocessing of an older version compares with the current one."""
    if name != "preprocessing" or not isinstance(value, dict):
        return value
    try:
        return from_json(Preprocessing, value)
    except DataError:
        return value


def _check_shapes(count: int, labels: Int64Array | None, indices: tuple[int, ...] | None, files: tuple[str, ...]) -> None:
    if labels is not None and labels.shape != (count,):
        raise ValueError("its arrays do not fit together")
    if any(len(each) != count for each in (indices, files) if each):
        raise ValueError("its names do not fit its answers")
