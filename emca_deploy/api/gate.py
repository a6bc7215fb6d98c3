"""`gate`: decides whether results keep requirements."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emca_deploy._progress import Progress
from emca_deploy.errors import InputError
from emca_deploy.history_store.series import newest_comparable, spread_of
from emca_deploy.history_store.store import store_file
from emca_deploy.requirements.confirming import artifact_of, confirm
from emca_deploy.requirements.deciding import DEFAULT, decide
from emca_deploy.requirements.documents import MeasuredCandidate, MeasuredDocument, chosen, is_document, read_document
from emca_deploy.requirements.estimates import Estimate, Spread, estimate
from emca_deploy.requirements.slowdown import against_another_run, in_one_run
from emca_deploy.results.requirements import (
    CONFIDENCE,
    FIGURES,
    Decision,
    Requirement,
    RequirementsReport,
    parse_requirements,
)

__all__ = ["GateRequest", "gate"]

HISTORY = "history"
"""Baseline that stands for the newest comparable result in the history."""


@dataclass(frozen=True)
class GateRequest:
    """What to decide.

    Attributes:
        results: Files of `profile -o`, `validate --json` or `deploy`.
        require: Requirements, such as "drop<=0.2, p99<=8ms".
        baseline: What `slowdown` is relative to: "history", a result file, or an artifact ("path" or "backend=path"); None is
            the first candidate of the same result.
        candidate: Name of the only candidate to decide about; None decides about all but the baseline.
        allow_undecided: Whether undecided requirements pass.
        confirm: Whether to measure candidate and baseline in turn for `slowdown`, as an artifact as baseline always does.
        max_duration_s: Most seconds of these measurements, for each candidate.
        store: File of the history; None is the one in the user's data folder.
    """

    results: tuple[Path, ...]
    require: tuple[str, ...]
    baseline: str | None = None
    candidate: str | None = None
    allow_undecided: bool = False
    confirm: bool = False
    max_duration_s: float = 120.0
    store: Path | None = None


def gate(request: GateRequest, progress: Progress | None = None) -> RequirementsReport:
    """Decide each requirement for each candidate by the end of its interval.

    Raises:
        InputError: a requirement or file is wrong, a result lacks a required figure, or runs cannot be compared.
        EmcaError: an artifact that is measured failed.
        KeyboardInterrupt: the user interrupted a measurement.
    """
    requirements = parse_requirements(request.require)
    documents = [read_document(place) for place in request.results]
    slowdowns = tuple(each for each in requirements if each.figure == "slowdown")
    estimates = _Estimates(request, slowdowns, progress)
    decisions: list[Decision] = []
    for requirement in requirements:
        decisions += _decided(requirement, request, documents, estimates)
    return replace(_report(request, decisions), notes=_doubts(documents, decisions))


def _doubts(documents: Sequence[MeasuredDocument], decisions: Sequence[Decision]) -> tuple[str, ...]:
    """Return a note for each candidate whose latency counts and was not stable."""
    timed = {each.candidate for each in decisions if FIGURES[each.figure].measured_by.startswith("profile")}
    found = [each for document in documents for each in document.all if each.name in timed]
    unstable = dict.fromkeys(each.name for each in found if each.latency is not None and not each.latency.stable)
    return tuple(f"{name}: its measurement was not stable; the warnings in its result say why" for name in unstable)


class _Estimates:
    """The figures of candidates; slowdowns that are measured are kept."""

    def __init__(self, request: GateRequest, slowdowns: Sequence[Requirement], progress: Progress | None) -> None:
        self._request = request
        self._slowdowns = slowdowns
        self._progress = progress
        self._confirmed: dict[str, Estimate] = {}
        named = request.baseline
        self._from_history = named == HISTORY
        is_file = named is not None and not self._from_history and is_document(named)
        self._baseline = read_document(Path(named)) if named is not None and is_file and slowdowns else None
        self._artifact = None if is_file or self._from_history else named

    def of(self, figure: str, candidate: MeasuredCandidate, document: MeasuredDocument) -> Estimate | None:
        """Return a figure of a candidate; None where its document lacks it."""
        if figure == "slowdown":
            return self._slowdown(candidate, document)
        return estimate(figure, candidate, self._spread(candidate, figure) if figure == "energy" else DEFAULT)

    @property
    def _store(self) -> Path:
        return store_file(self._request.store)

    def _spread(self, candidate: MeasuredCandidate, figure: str) -> Spread:
        machine = "" if candidate.run is None else str(candidate.run.report.environment.get("fingerprint") or "")
        return spread_of(self._store, machine, figure) or DEFAULT

    def _slowdown(self, candidate: MeasuredCandidate, document: MeasuredDocument) -> Estimate | None:
        """Return the slowdown: by interleaved measurements, against another run, or in the same run."""
        if self._artifact is not None:
            return self._measured(candidate, self._artifact)
        against = self._against(candidate, document)
        if against is None or against is candidate:
            return None
        if self._request.confirm:
            return self._measured(candidate, artifact_of(against))
        if candidate.latency is None:
            return None
        if self._request.baseline is None:
            return in_one_run(candidate, against)
        offline = candidate.latency.scenario == "offline"
        return against_another_run(candidate, against, self._spread(candidate, "throughput" if offline else "p50"))

    def _against(self, candidate: MeasuredCandidate, document: MeasuredDocument) -> MeasuredCandidate | None:
        if self._baseline is not None:
            return _counterpart(candidate, self._baseline)
        if not self._from_history or candidate.latency is None:
            return document.baseline
        found = newest_comparable(self._store, candidate, document)
        if found is None:
            problem = f"{self._store}: has no other run of '{document.label(candidate)}' with this machine and protocol"
            raise InputError(problem, "add one: emca-deploy history add RESULT.json")
        return found

    def _measured(self, candidate: MeasuredCandidate, baseline: str) -> Estimate:
        if candidate.name not in self._confirmed:
            most_s = self._request.max_duration_s
            self._confirmed[candidate.name] = confirm(candidate, baseline, self._slowdowns, most_s, self._progress)
        return self._confirmed[candidate.name]


def _counterpart(candidate: MeasuredCandidate, baseline: MeasuredDocument) -> MeasuredCandidate:
    """Return the candidate of the baseline with the same name, or its only one.

    Raises:
        InputError: there is none.
    """
    found = baseline.named(candidate.name) or (baseline.all[0] if len(baseline.all) == 1 else None)
    if found is None:
        known = ", ".join(each.name for each in baseline.all)
        raise InputError(
            f"{baseline.place}: has no candidate '{candidate.name}', but {known}", "name one of these with --artifact"
        )
    return found


def _decided(
    requirement: Requirement, request: GateRequest, documents: Sequence[MeasuredDocument], estimates: _Estimates
) -> list[Decision]:
    """Return the decisions about a requirement, one for each candidate that has its figure.

    Raises:
        InputError: no result has the figure.
    """
    found = []
    named = [each for each in documents if request.candidate is None or each.named(request.candidate) is not None]
    for document in named or documents:
        for candidate in chosen(document, request.candidate, with_first=request.baseline is not None):
            estimated = estimates.of(requirement.figure, candidate, document)
            if estimated is not None:
                found.append(decide(requirement, candidate.name, estimated))
    if not found:
        places = ", ".join(str(document.place) for document in documents)
        measured_by = FIGURES[requirement.figure].measured_by
        raise InputError(f"--require {requirement.text}: {places} has no {requirement.figure}", f"measure it: {measured_by}")
    return found


def _report(request: GateRequest, decisions: Sequence[Decision]) -> RequirementsReport:
    bad = ("fail",) if request.allow_undecided else ("fail", "undecided")
    return RequirementsReport(
        passed=not any(each.verdict in bad for each in decisions),
        confidence_percent=100 * CONFIDENCE,
        allow_undecided=request.allow_undecided,
        results=tuple(map(str, request.results)),
        decisions=tuple(decisions),
    )
