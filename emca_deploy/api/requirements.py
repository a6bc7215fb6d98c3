"""`gate`: decides whether results keep requirements."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emca_deploy._progress import Progress
from emca_deploy.errors import InputError
from emca_deploy.requirements.confirming import artifact_of, confirm
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
    verdict_of_interval,
)
from emca_deploy.stats.between_runs import DEFAULT_SPREAD

__all__ = ["GateRequest", "gate"]

DEFAULT = Spread(
    DEFAULT_SPREAD, 0, f"{DEFAULT_SPREAD * 100:g} %, the default, since the history has too few runs of this machine"
)


@dataclass(frozen=True)
class GateRequest:
    """What to decide.

    Attributes:
        results: Files of `profile -o`, `validate --json` or `deploy`.
        require: Requirements, such as "drop<=0.2, p99<=8ms".
        baseline: Result file, or artifact ("path" or "backend=path"), that `slowdown` is relative to; None is the first candidate
            of the same result.
        candidate: Name of the only candidate to decide about; None decides about all but the baseline.
        allow_undecided: Whether undecided requirements pass.
        confirm: Whether to measure candidate and baseline in turn for `slowdown`, as an artifact as baseline always does.
        max_duration_s: Most seconds of these measurements, for each candidate.
    """

    results: tuple[Path, ...]
    require: tuple[str, ...]
    baseline: str | None = None
    candidate: str | None = None
    allow_undecided: bool = False
    confirm: bool = False
    max_duration_s: float = 120.0


def gate(request: GateRequest, progress: Progress | None = None) -> RequirementsReport:
    """Decide each requirement for each candidate by the end of its interval.

    Raises:
        InputError: a requirement or file is wrong, a result lacks a required figure, or runs cannot be compared.
        EmcaError: an artifact that is measured failed.
        KeyboardInterrupt: the user interrupted a measurement.
    """
    requirements = parse_requirements(request.require)
    documents = [read_document(place) for place in request.results]
    slowdown = _slowdowns(request, [each for each in requirements if each.figure == "slowdown"], progress)
    decisions: list[Decision] = []
    for requirement in requirements:
        of = slowdown if requirement.figure == "slowdown" else _own
        decisions += _decided(requirement, request, documents, of)
    return _report(request, decisions)


Estimator = Callable[[Requirement, MeasuredCandidate, MeasuredDocument], Estimate | None]


def _own(requirement: Requirement, candidate: MeasuredCandidate, document: MeasuredDocument) -> Estimate | None:
    del document
    return estimate(requirement.figure, candidate, DEFAULT)


def _slowdowns(request: GateRequest, requirements: Sequence[Requirement], progress: Progress | None) -> Estimator:
    """Return what estimates the slowdown: from interleaved measurements, another file, or the same file.

    Raises:
        InputError: the baseline is neither a result nor an artifact.
    """
    is_file = request.baseline is not None and is_document(request.baseline)
    other = read_document(Path(request.baseline)) if request.baseline is not None and is_file and requirements else None
    artifact = None if is_file else request.baseline
    confirmed: dict[str, Estimate] = {}

    def of(requirement: Requirement, candidate: MeasuredCandidate, document: MeasuredDocument) -> Estimate | None:
        del requirement
        against = document.baseline if other is None else _counterpart(candidate, other)
        if artifact is not None or (request.confirm and against is not None and against is not candidate):
            if candidate.name not in confirmed:
                name = artifact if artifact is not None or against is None else artifact_of(against)
                assert name is not None
                confirmed[candidate.name] = confirm(candidate, name, requirements, request.max_duration_s, progress)
            return confirmed[candidate.name]
        if candidate.latency is None or against is None or against is candidate:
            return None
        return in_one_run(candidate, against) if other is None else against_another_run(candidate, against, DEFAULT)

    return of


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
    requirement: Requirement, request: GateRequest, documents: Sequence[MeasuredDocument], of: Estimator
) -> list[Decision]:
    """Return the decisions about a requirement, one for each candidate that has its figure.

    Raises:
        InputError: no result has the figure.
    """
    found = []
    named = [each for each in documents if request.candidate is None or each.named(request.candidate) is not None]
    for document in named or documents:
        for candidate in chosen(document, request.candidate, with_first=request.baseline is not None):
            estimated = of(requirement, candidate, document)
            if estimated is not None:
                found.append(_decision(requirement, candidate, estimated))
    if not found:
        places = ", ".join(str(document.place) for document in documents)
        measured_by = FIGURES[requirement.figure].measured_by
        raise InputError(f"--require {requirement.text}: {places} has no {requirement.figure}", f"measure it: {measured_by}")
    return found


def _decision(requirement: Requirement, candidate: MeasuredCandidate, found: Estimate) -> Decision:
    verdict = verdict_of_interval(requirement, found.low, found.high)
    decision = Decision(
        requirement=requirement.text,
        candidate=candidate.name,
        figure=requirement.figure,
        unit=FIGURES[requirement.figure].unit,
        value=found.value,
        low=found.low,
        high=found.high,
        limit=requirement.limit,
        verdict=verdict,
        method=found.method,
        baseline=found.baseline,
    )
    if verdict != "undecided":
        return decision
    return replace(
        decision,
        images_needed=found.images(requirement.limit),
        seconds_needed=found.seconds(requirement.limit),
        hint=found.hint,
    )


def _report(request: GateRequest, decisions: Sequence[Decision]) -> RequirementsReport:
    bad = ("fail",) if request.allow_undecided else ("fail", "undecided")
    return RequirementsReport(
        passed=not any(each.verdict in bad for each in decisions),
        confidence_percent=100 * CONFIDENCE,
        allow_undecided=request.allow_undecided,
        results=tuple(map(str, request.results)),
        decisions=tuple(decisions),
    )
