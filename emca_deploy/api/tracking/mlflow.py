"""Sends finished results to MLflow; a run that is there already is not sent again."""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from emca_deploy._optional import import_optional
from emca_deploy._progress import Progress
from emca_deploy._text import shell_word
from emca_deploy.api.tracking.runs import PREFIX, LoggedRun, runs_of
from emca_deploy.errors import EmcaError, MissingError, OutputError

__all__ = ["MlflowLogged", "check_mlflow", "log_to_mlflow"]

EXPERIMENT = "emca-deploy"
"""Name of the experiment, unless MLFLOW_EXPERIMENT_NAME gives another."""

_KEY = PREFIX + "key"
_LOGIN = re.compile(r"//[^/@\s]*@")
_LONGEST = 6000  # characters of a parameter; of a tag 8000
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own would wait for a server that is not there for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Settings of MLflow that the user's environment overrides."""


@dataclass(frozen=True)
class MlflowLogged:
    """What was logged.

    Attributes:
        experiment: Name of the experiment.
        added: Number of runs that were logged.
        known: Number of runs that were there already.
    """

    experiment: str
    added: int
    known: int


def check_mlflow(uri: str) -> None:
    """Check that results can be logged, before they are measured.

    Raises:
        MissingError: MLflow is not installed, or there is no server at `uri`.
    """
    try:
        _Tracker(uri)
    except EmcaError:
        raise
    except Exception as exc:  # MLflow raises those of requests, sqlalchemy and its own
        remedy = "check the address, or leave --mlflow out; a database needs: pip install mlflow"
        raise MissingError(f"{_shown(uri)}: MLflow cannot be used: {_reason(exc)}", remedy) from exc


def log_to_mlflow(results: Sequence[Path], uri: str, progress: Progress | None = None) -> MlflowLogged:
    """Log results: files of `profile`, `validate` or `deploy`, or folders of deployments and sweeps.

    Args:
        results: files and folders.
        uri: address of the server, such as http://localhost:5000, or another tracking URI of MLflow.
        progress: callback that gets (runs done, runs in total).

    Raises:
        InputError: a result cannot be read; nothing was logged.
        MissingError: MLflow is not installed.
        OutputError: not all could be logged. The same call goes on where it stopped.
    """
    runs = [runs_of(path) for path in results]
    total = sum(1 + len(run.children) for run in runs)
    try:
        tracker = _Tracker(uri, lambda done: progress(done, total) if progress is not None else None)
        for run in runs:
            tracker.log(run)
    except EmcaError:
        raise
    except Exception as exc:
        places = " ".join(shell_word(str(path)) for path in results)
        remedy = f"emca-deploy history add {places} --mlflow {shell_word(_shown(uri))}"
        raise OutputError(f"{_shown(uri)}: the results are written, but not logged: {_reason(exc)}", remedy) from exc
    return MlflowLogged(tracker.experiment, tracker.added, tracker.known)


def _reason(error: BaseException) -> str:
    """Return one line: what the operating system said, if anything, else the library's text."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__context__
    return " ".join(_shown(str(error)).split())[:300]


def _shown(text: str) -> str:
    """Return a text without the passwords of addresses in it."""
    return _LOGIN.sub("//", text)


class _Tracker:
    """An experiment of an MLflow server."""

    def __init__(self, uri: str, report: Any = None) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        self._entities = import_optional("mlflow.entities")
        self._client = import_optional("mlflow.tracking").MlflowClient(tracking_uri=uri)
        self.experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        self.added = self.known = 0
        self._report = report
        found = self._client.get_experiment_by_name(self.experiment)
        self._id = self._client.create_experiment(self.experiment) if found is None else found.experiment_id

    def log(self, run: LoggedRun, parent: str | None = None) -> None:
        """Log a run and its children; one that was logged whole is left as it is, but a parent gets new children and files."""
        status = "FAILED" if run.failed else "FINISHED"
        found = self._client.search_runs([self._id], f"tags.`{_KEY}` = '{run.key}'", max_results=1)
        known = bool(found) and found[0].info.status == status
        when = _milliseconds(run.created)
        tags = {_KEY: run.key, "mlflow.source.name": "emca-deploy", **run.tags}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        started = found[0] if found else self._client.create_run(self._id, when, tags, run.name)
        place = started.info.run_id
        if not known:
            self._fill(place, run, tags, when)
        if not known or run.children:
            for file in run.files:
                self._client.log_artifact(place, str(file))
        self.added, self.known = self.added + (not known), self.known + known
        if self._report is not None:
            self._report(self.added + self.known)
        for child in run.children:
            self.log(child, place)
        if not known:
            self._client.set_terminated(place, status, max(when, 1))

    def _fill(self, place: str, run: LoggedRun, tags: dict[str, str], when: int) -> None:
        entities = self._entities
        self._client.log_batch(
            place,
            metrics=[entities.Metric(name, value, when, 0) for name, value in run.metrics.items()],
            params=[entities.Param(name, value[:_LONGEST]) for name, value in run.params.items()],
            tags=[entities.RunTag(name, value[:_LONGEST]) for name, value in tags.items()],
        )


def _milliseconds(created: str) -> int:
    return int(1000 * (datetime.fromisoformat(created).timestamp() if created else time.time()))
