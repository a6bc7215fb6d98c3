"""Finished results as the runs that an experiment tracker keeps; this needs no tracker."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from emca_deploy.api.sweeping.folder import INDEX, SweepFolder
from emca_deploy.artifacts import sha256_file
from emca_deploy.errors import InputError
from emca_deploy.requirements.deciding import DEFAULT
from emca_deploy.requirements.documents import MeasuredCandidate, MeasuredDocument, read_document
from emca_deploy.requirements.estimates import estimate
from emca_deploy.requirements.sweeps import candidate_of
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.requirements import FIGURES
from emca_deploy.results.sweep import CellResult

__all__ = ["PREFIX", "LoggedRun", "runs_of"]

PREFIX = "emca_deploy."
"""Beginning of the names of this package's tags."""

_UNITS = {"%": "percent", "images/s": "images_per_s"}
_PAGE = "report.html"


@dataclass(frozen=True)
class LoggedRun:
    """A run: one candidate or cell, or the parent of those that were measured together.

    Attributes:
        key: Text that tells it from all other runs; the same result has the same key whenever it is logged.
        created: Time of the measurement, ISO 8601 in UTC.
        params: How it was measured.
        metrics: Figures by name with their unit; `NAME_low` and `NAME_high` are the ends of the interval that `gate` decides by.
        tags: Versions, digests and, of a failed cell, the error.
        files: Files to keep with it.
        failed: Whether it is a failed cell.
        children: Runs that were measured together.
    """

    name: str
    key: str
    created: str
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    failed: bool = False
    children: tuple["LoggedRun", ...] = ()


def runs_of(place: Path) -> LoggedRun:
    """Return the runs of a result: a file of `profile`, `validate` or `deploy`, or the folder of a deployment or sweep.

    Raises:
        InputError: the result cannot be read, or is none of these.
    """
    folder = place.parent if place.name == INDEX else place
    if (folder / INDEX).is_file():
        return _sweep(folder)
    document = read_document(place)
    files = (document.place, *_page_in(document.place.parent, document.kind == "deploy"))
    runs = [_candidate(document, each) for each in document.all]
    if len(runs) == 1:
        (run,) = runs
        return LoggedRun(run.name, run.key, run.created, run.params, run.metrics, run.tags, files)
    name = document.title or document.place.name
    tags = {PREFIX + "kind": document.kind}
    return LoggedRun(name, document.key, document.created, tags=tags, files=files, children=tuple(runs))


def _page_in(folder: Path, wanted: bool) -> Iterator[Path]:
    if wanted and (folder / _PAGE).is_file():
        yield folder / _PAGE


def _candidate(document: MeasuredDocument, candidate: MeasuredCandidate) -> LoggedRun:
    environment = {} if candidate.run is None else candidate.run.report.environment
    return LoggedRun(
        document.label(candidate),
        sha256(f"{document.key}\0{candidate.name}".encode()).hexdigest(),
        document.created,
        {"model": candidate.artifact, **_how(candidate, environment)},
        _metrics(candidate),
        {
            PREFIX + "kind": document.kind,
            **_provenance(environment),
            **_digest(candidate.artifact, document.place.parent, document.created),
        },
    )


def _how(candidate: MeasuredCandidate, environment: dict[str, Any]) -> dict[str, str]:
    """Return the parameters that the latency has."""
    result = candidate.latency
    if result is None:
        return {}
    own = {name: getattr(result, name) for name in ("backend", "precision", "target", "scenario", "batch")}
    values = {**own, "threads": result.runtime.get("threads"), "runtime": result.runtime.get("version")}
    values["machine"] = environment.get("fingerprint")
    return {name: str(value) for name, value in values.items() if value is not None}


def _provenance(environment: dict[str, Any]) -> dict[str, str]:
    parts = environment.get("fingerprint_parts")
    values = {"version": environment.get("emca_deploy"), "processor": parts.get("cpu") if isinstance(parts, dict) else None}
    return {PREFIX + name: str(value) for name, value in values.items() if value}


def _digest(artifact: str, folder: Path, created: str) -> dict[str, str]:
    """Return the tag with the artifact's sha256, if the file is there and as old as the measurement."""
    for path in (Path(artifact), folder / artifact):
        if path.is_file() and path.stat().st_mtime <= datetime.fromisoformat(created).timestamp() + 1:
            return {PREFIX + "artifact_sha256": sha256_file(path)}
    return {}


def _metrics(candidate: MeasuredCandidate) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, figure in FIGURES.items():
        if name == "slowdown":  # of two candidates
            continue
        try:
            value = estimate(name, candidate, DEFAULT)
        except InputError:  # the samples for its interval are elsewhere
            continue
        if value is not None:
            metric = f"{name}_{_UNITS.get(figure.unit, figure.unit.lower())}"
            ends = {f"{metric}_low": value.low, f"{metric}_high": value.high}
            found |= {metric: value.value, **{end: limit for end, limit in ends.items() if limit is not None}}
    report = candidate.accuracy
    if isinstance(report, AccuracyReport) and report.reference is not None and report.reference.sqnr_db is not None:
        found["sqnr_db"] = report.reference.sqnr_db
    return found


def _sweep(folder: Path) -> LoggedRun:
    report, cells = SweepFolder(folder).results()
    place = str(folder.resolve())
    return LoggedRun(
        folder.resolve().name,
        sha256(f"{report.fingerprint}\0{place}".encode()).hexdigest(),
        report.created,
        {"plan": report.plan},
        tags={PREFIX + "kind": "sweep", PREFIX + "folder": place, PREFIX + "plan_sha256": report.plan_sha256},
        files=(folder / INDEX, *_page_in(folder, wanted=True)),
        children=tuple(_cell(folder, result) for result in cells.values()),
    )


def _cell(folder: Path, result: CellResult) -> LoggedRun:
    cell = result.cell
    params = {name: str(value) for name, value in asdict(cell).items() if value is not None}
    tags = {PREFIX + "kind": "cell", **_provenance(result.environment)}
    files = (SweepFolder(folder).cell(result.key),)
    if result.failure is not None:
        tags[PREFIX + "error"] = result.failure.error
        return LoggedRun(cell.name, result.key, result.created, params, {}, tags, files, failed=True)
    candidate = candidate_of(result)
    tags |= _digest(candidate.artifact, folder, result.created)
    params = {**_how(candidate, result.environment), **params}
    return LoggedRun(cell.name, result.key, result.created, params, _metrics(candidate), tags, files)
