"""Reads the documents of `profile`, `validate` and `deploy` as candidates with their figures."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from emca_deploy._text import printable
from emca_deploy.errors import DataError, InputError, UnknownNameError
from emca_deploy.harness.measure.comparing import Measured
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import from_json
from emca_deploy.results.deploy import DeployReport
from emca_deploy.results.detection import DetectionReport
from emca_deploy.results.latency import LatencyResult, ProfileReport

__all__ = [
    "MeasuredCandidate",
    "MeasuredDocument",
    "chosen",
    "document_of",
    "is_document",
    "kind_of",
    "read_document",
    "read_values",
]

_REMEDY = "name a file that `profile -o`, `validate --json` or `deploy` wrote"

Accuracy = AccuracyReport | DetectionReport


@dataclass(frozen=True)
class MeasuredCandidate:
    """A candidate of a document, with what the document says about it.

    Attributes:
        name: Name of the candidate in its document.
        artifact: Artifact that was measured.
        run: Its latency as a profile of one candidate; None in a document of `validate`.
        accuracy: Its accuracy; None in a document of `profile`.
        file_mib: Size of its file; None where the document does not say.
    """

    name: str
    artifact: str
    run: Measured | None = None
    accuracy: Accuracy | None = None
    file_mib: float | None = None

    @property
    def latency(self) -> LatencyResult | None:
        """The result of `profile`; None without one."""
        return None if self.run is None else self.run.report.results[0]


@dataclass(frozen=True)
class MeasuredDocument:
    """A document with its candidates.

    Attributes:
        kind: "profile", "deploy", "validate" or "validate-detection".
        baseline: Candidate that the document compares the others with; None where there is none.
        candidates: Every other candidate.
        key: sha256 of the document's values, whatever their layout.
        created: Time of the measurement, ISO 8601 in UTC; that of the file where the document has none.
        title: Title of a deployment; "" for other documents.
    """

    place: Path
    kind: str
    baseline: MeasuredCandidate | None
    candidates: tuple[MeasuredCandidate, ...]
    key: str = ""
    created: str = ""
    title: str = ""

    def label(self, candidate: MeasuredCandidate) -> str:
        """Return a candidate's name among those of all documents, as one printable line."""
        return printable(f"{self.title}: {candidate.name}" if self.title else candidate.name)

    @property
    def all(self) -> tuple[MeasuredCandidate, ...]:
        """Every candidate, the baseline first."""
        return self.candidates if self.baseline is None else (self.baseline, *self.candidates)

    def named(self, name: str) -> MeasuredCandidate | None:
        """Return the candidate with a name or artifact; None without one."""
        return next((each for each in self.all if name in (each.name, each.artifact)), None)


def read_document(place: Path) -> MeasuredDocument:
    """Return the document in a file, of this or an older schema version. A folder stands for the result.json in it.

    Raises:
        InputError: the file cannot be read, or is no document with figures.
    """
    path, values = read_values(place)
    return document_of(values, path)


def read_values(place: Path) -> tuple[Path, Any]:
    """Return the file of a document, and its JSON values.

    Raises:
        InputError: the file cannot be read.
    """
    path = place / "result.json" if place.is_dir() else place
    if not path.exists() and (place / "sweep.json").is_file():
        raise InputError(
            f"{place}: is the folder of a sweep", f"decide about its cells with: emca-deploy report {place} --require"
        )
    try:
        return path, json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}", _REMEDY) from exc
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{path}: not a result of emca-deploy: {exc}", _REMEDY) from exc


def is_document(name: str) -> bool:
    """Return whether a name is that of a result file or of a deployment's folder, rather than of an artifact."""
    place = Path(name)
    return place.suffix.lower() == ".json" or (place.is_dir() and (place / "result.json").exists())


def kind_of(values: Any) -> str | None:
    """Return the kind of a JSON document; None for one without figures."""
    if not isinstance(values, dict):
        return None
    if "candidates" in values and "baseline" in values:
        return "deploy"
    if "results" in values and "comparisons" in values:
        return "profile"
    if "samples" in values and "artifact" in values:
        return "validate-detection" if values.get("task") == "detection" else "validate"
    return None


def document_of(values: Any, place: Path) -> MeasuredDocument:
    """Return the document with these JSON values.

    Raises:
        DataError: it is no document with figures, or is damaged.
    """
    found = _document(values, place)
    first = next((each.run.report.environment for each in found.all if each.run is not None), {})
    created = _in_utc(values.get("created") or first.get("created")) or _time_of(place)
    return replace(
        found, key=_key_of(values), created=created, title=str(values.get("title") or "") if found.kind == "deploy" else ""
    )


def _key_of(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _in_utc(moment: Any) -> str:
    """Return a time stamp in UTC; "" for another value."""
    try:
        return datetime.fromisoformat(str(moment)).astimezone(timezone.utc).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return ""


def _time_of(place: Path) -> str:
    seconds = place.stat().st_mtime if place.exists() else 0.0
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _document(values: Any, place: Path) -> MeasuredDocument:
    kind, source = kind_of(values), f"{place}: not a result of emca-deploy, or damaged"
    if kind == "profile":
        return _profiled(Measured.of(place, from_json(ProfileReport, values, source, _REMEDY)))
    if kind == "deploy":
        return _deployed(place, from_json(DeployReport, values, source, _REMEDY))
    if kind is None:
        raise DataError(f"{place}: not a result of `profile`, `validate` or `deploy`", _REMEDY)
    report: Accuracy = (
        from_json(DetectionReport, values, source, _REMEDY)
        if kind == "validate-detection"
        else from_json(AccuracyReport, values, source, _REMEDY)
    )
    return MeasuredDocument(place, kind, None, (MeasuredCandidate(report.artifact, report.artifact, accuracy=report),))


def _profiled(measured: Measured) -> MeasuredDocument:
    report = measured.report
    names = _unique([result.artifact for result in report.results], [result.backend for result in report.results])
    found = [
        MeasuredCandidate(name, result.artifact, measured.alone(index), file_mib=_file_mib(result.artifact))
        for index, (name, result) in enumerate(zip(names, report.results, strict=True))
    ]
    if not found:
        raise DataError(f"{measured.place}: has no candidate that was measured", "measure again")
    baseline = found[0] if len(found) > 1 else None
    return MeasuredDocument(measured.place, "profile", baseline, tuple(found if baseline is None else found[1:]))


def _deployed(place: Path, report: DeployReport) -> MeasuredDocument:
    found = []
    for each in report.candidates:
        profile = ProfileReport((each.latency,), (), report.environment, protocol=each.latency.protocol)
        found.append(MeasuredCandidate(each.name, each.latency.artifact, Measured(place, profile), each.accuracy, each.file_mib))
    baseline = next(each for each in found if each.name == report.baseline)
    others = tuple(each for each in found if each is not baseline)
    return MeasuredDocument(place, "deploy", baseline if others else None, others or (baseline,))


def _unique(artifacts: Sequence[str], backends: Sequence[str]) -> list[str]:
    """Return a name for each candidate: its artifact, with its backend where that alone is not unique."""
    return [
        artifact if artifacts.count(artifact) == 1 else f"{backend}={artifact}"
        for artifact, backend in zip(artifacts, backends, strict=True)
    ]


def _file_mib(artifact: str) -> float | None:
    path = Path(artifact)
    return path.stat().st_size / 2**20 if path.is_file() else None


def chosen(document: MeasuredDocument, name: str | None, *, with_first: bool) -> tuple[MeasuredCandidate, ...]:
    """Return the candidates to decide about: the named one, or all but the baseline.

    The first of a profile counts where the baseline is elsewhere (`with_first`).

    Raises:
        UnknownNameError: no candidate has that name.
    """
    if name is not None:
        if (found := document.named(name)) is None:
            known = [each.name for each in document.all]
            raise UnknownNameError.of("candidate", name, known, f"{document.place} has {', '.join(known)}")
        return (found,)
    return document.all if with_first and document.kind == "profile" else document.candidates
