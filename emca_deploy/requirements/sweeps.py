"""Chooses among the cells of a sweep, or the candidates of a deployment: the fastest that keeps all requirements."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp, log, sqrt
from pathlib import Path
from statistics import NormalDist

from emca_deploy.backends.records import DEFAULT as REFERENCE_BACKEND
from emca_deploy.errors import InputError
from emca_deploy.harness.measure.comparing import Measured
from emca_deploy.requirements.deciding import DEFAULT, decide
from emca_deploy.requirements.documents import MeasuredCandidate
from emca_deploy.requirements.estimates import Estimate, estimate
from emca_deploy.requirements.slowdown import against_another_run, in_one_run
from emca_deploy.results.latency import ProfileReport
from emca_deploy.results.requirements import CONFIDENCE, FIGURES, Decision, Requirement
from emca_deploy.results.sweep import CellResult, SweepCell, SweepReport, SweepRow, dominates, ms_per_image, name_on, row_of
from emca_deploy.results.sweep_choice import CellChange, CellVerdict, GroupChoice, Interval, Outcome, SweepDocument, Unknown

__all__ = ["candidate_of", "changes_of", "choose"]

_ACCURACIES = ("drop", "mask-drop", "top1", "agreement")
_OWN = ("drop", "mask-drop", "slowdown")
"""Figures that are 0 for the reference itself."""


def choose(
    report: SweepReport, cells: Mapping[str, CellResult], requirements: Sequence[Requirement], baseline: str | None = None
) -> SweepDocument:
    """Decide each requirement for each finished cell, and choose one for each machine, target and scenario.

    Args:
        report: the index of the sweep.
        cells: results of the finished cells by key.
        requirements: requirements; none for no choice.
        baseline: key of the cell that drop and slowdown are relative to, where all cells were measured in one run; None is the
            fp32 model on ONNX Runtime, where each cell has a run of its own.
    """
    named = {row.key: row.name for row in report.cells}
    candidates = {
        key: replace(candidate_of(result), name=named[key]) for key, result in cells.items() if result.latency is not None
    }
    kinds = dict.fromkeys((row.machine, row.cell.target, row.cell.scenario) for row in report.cells)
    groups = []
    for kind in kinds:
        rows = [row for row in report.cells if (row.machine, row.cell.target, row.cell.scenario) == kind]
        groups.append(_Group(rows, candidates, requirements, baseline).choice())
    return SweepDocument(tuple(each.text for each in requirements), 100 * CONFIDENCE, tuple(groups), report)


def changes_of(cells: Mapping[str, CellResult], before: Mapping[str, CellResult]) -> tuple[CellChange, ...]:
    """Return the difference of each finished cell from the cell of the same name in another sweep, by intervals."""
    others = {name_on(each.cell, each.machine): each for each in before.values() if each.latency is not None}
    found = []
    for result in cells.values():
        other = others.get(name_on(result.cell, result.machine))
        if result.latency is None or other is None:
            continue
        row, old = row_of(result), row_of(other)
        same = result.environment.get("fingerprint") == other.environment.get("fingerprint") is not None
        ratio = _ratio_of(_time_of(candidate_of(result), row), _time_of(candidate_of(other), old)) if same else None
        known = row.accuracy is not None and old.accuracy is not None and row.metric == old.metric
        found.append(CellChange(row.key, old.key, ratio, (row.accuracy or 0.0) - (old.accuracy or 0.0) if known else None))
    return tuple(found)


def candidate_of(result: CellResult) -> MeasuredCandidate:
    """Return a finished cell as a candidate."""
    assert result.latency is not None
    run = ProfileReport((result.latency,), (), result.environment, protocol=result.latency.protocol)
    artifact = result.artifact or result.latency.artifact
    measured = Measured(Path("cells") / f"{result.key}.json", run)
    return MeasuredCandidate(result.cell.name, artifact, measured, result.accuracy, result.file_mib)


class _Group:
    """The cells of one machine, target and scenario."""

    def __init__(
        self,
        rows: Sequence[SweepRow],
        candidates: Mapping[str, MeasuredCandidate],
        requirements: Sequence[Requirement],
        baseline: str | None,
    ) -> None:
        self._rows, self._candidates, self._requirements, self._baseline = rows, candidates, requirements, baseline
        self._done = sorted((row for row in rows if row.key in candidates), key=ms_per_image)
        self._times = {row.key: _time_of(candidates[row.key], row) for row in self._done}

    def choice(self) -> GroupChoice:
        """Return the choice and the verdict on each cell."""
        decided = {row.key: self._decided(row) for row in self._done}
        keeping = [row for row in self._done if self._requirements and _outcome(*decided[row.key]) == "best"]
        best = keeping[0].key if keeping else None
        verdicts = [self._verdict(row, best, *decided[row.key]) for row in self._done]
        verdicts += [CellVerdict(row.key, _without_result(row)) for row in self._rows if row.key not in decided]
        cell = self._rows[0].cell
        return GroupChoice(cell.target, cell.scenario, best, self._most_accurate(keeping), tuple(verdicts), self._rows[0].machine)

    def _most_accurate(self, keeping: Sequence[SweepRow]) -> str | None:
        """Return the most accurate cell that keeps all, where nothing limits the accuracy and the metric is the same."""
        limited = any(each.figure in _ACCURACIES for each in self._requirements)
        known = [(row.accuracy, row) for row in keeping if row.accuracy is not None]
        if limited or not known or len({row.metric for row in keeping}) > 1:
            return None
        return max(known, key=lambda pair: pair[0])[1].key  # the first, which is the fastest, of equal ones

    def _verdict(self, row: SweepRow, best: str | None, decisions: Sequence[Decision], unknown: Sequence[Unknown]) -> CellVerdict:
        if not self._requirements:
            better = next((other.key for other in self._done if dominates(other, row)), None)
            ratio = None if better is None else self._ratio(row.key, better)
            return CellVerdict(row.key, "front" if better is None else "dominated", better, ratio)
        outcome = _outcome(decisions, unknown)
        ratio = None if best in (None, row.key) else self._ratio(row.key, str(best))
        if outcome == "best" and row.key != best:
            outcome = "close" if ratio is None or ratio[0] <= 1 else "slower"
        return CellVerdict(row.key, outcome, None if row.key == best else best, ratio, tuple(decisions), tuple(unknown))

    def _ratio(self, one: str, other: str) -> Interval | None:
        if self._baseline is not None:
            return _ratio_in_one_run(self._candidates[one], self._candidates[other])
        return _ratio_of(self._times[one], self._times[other])

    def _decided(self, row: SweepRow) -> tuple[list[Decision], list[Unknown]]:
        decisions, unknown = [], []
        for requirement in self._requirements:
            try:
                found = self._estimate(requirement.figure, row)
            except InputError as exc:
                unknown.append(Unknown(requirement.text, exc.problem))
                continue
            if found is None:
                unknown.append(Unknown(requirement.text, f"{requirement.figure} was not measured"))
            else:
                decisions.append(decide(requirement, row.name, found))
        return decisions, unknown

    def _estimate(self, figure: str, row: SweepRow) -> Estimate | None:
        """Return a figure of a cell; the slowdown is relative to the cell of the fp32 model on ONNX Runtime.

        Raises:
            InputError: there are no samples, or too few, for an interval.
        """
        candidate = self._candidates[row.key]
        reference = self._reference(row)
        if figure in _OWN and row.key == reference and (figure == "slowdown" or row.drop is not None):
            return Estimate(0.0, 0.0, 0.0, "it is the reference", baseline=row.name)
        if figure != "slowdown":
            return estimate(figure, candidate, DEFAULT)
        if reference is None:
            raise InputError(f"the sweep has no finished cell {_reference_of(row.cell).name}", FIGURES[figure].measured_by)
        if self._baseline is not None and reference in self._times:
            return in_one_run(candidate, self._candidates[reference])
        return against_another_run(candidate, self._candidates[reference], DEFAULT)

    def _reference(self, row: SweepRow) -> str | None:
        """Return the key of the cell that a cell's drop and slowdown are relative to; None where it has no result."""
        if self._baseline is not None:
            return self._baseline
        reference = _reference_of(row.cell)
        return next((other.key for other in self._done if other.cell == reference), None)


def _reference_of(cell: SweepCell) -> SweepCell:
    """Return the cell of the fp32 model on ONNX Runtime."""
    return SweepCell(cell.model, cell.image_size, "fp32", REFERENCE_BACKEND, cell.target, cell.scenario, cell.batch, cell.threads)


def _outcome(decisions: Sequence[Decision], unknown: Sequence[Unknown]) -> Outcome:
    verdicts = {each.verdict for each in decisions}
    return "fails" if "fail" in verdicts else "undecided" if "undecided" in verdicts or unknown else "best"


def _without_result(row: SweepRow) -> Outcome:
    return "failed" if row.status == "failed" else "pending"


def _time_of(candidate: MeasuredCandidate, row: SweepRow) -> Interval | None:
    """Return the time of one image in ms with its interval; None where there are too few samples for one."""
    offline = row.cell.scenario == "offline"
    try:
        found = estimate("throughput" if offline else "p50", candidate, DEFAULT)
    except InputError:
        return None
    if found is None or not found.value or not found.low or not found.high:
        return None
    if offline:
        return 1e3 / found.high, 1e3 / found.value, 1e3 / found.low
    return found.low / row.cell.batch, found.value / row.cell.batch, found.high / row.cell.batch


def _ratio_of(one: Interval | None, other: Interval | None) -> Interval | None:
    """Return the ratio of two times and its interval, with the spread between runs of each.

    The interval is that of a difference of logarithms, made from both intervals. Source: G. Zou and A. Donner, "Construction of
    confidence limits about effect measures" (Statistics in Medicine 27, 2008).
    """
    if one is None or other is None:
        return None
    between = 2 * (NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * DEFAULT.deviation) ** 2
    ratio = one[1] / other[1]
    below = sqrt(log(one[1] / one[0]) ** 2 + log(other[2] / other[1]) ** 2 + between)
    above = sqrt(log(one[2] / one[1]) ** 2 + log(other[1] / other[0]) ** 2 + between)
    return ratio * exp(-below), ratio, ratio * exp(above)


def _ratio_in_one_run(one: MeasuredCandidate, other: MeasuredCandidate) -> Interval | None:
    """Return the ratio of the times of two candidates whose blocks alternated; None where there is no interval."""
    try:
        found = in_one_run(one, other)
    except InputError:
        return None
    if found.low is None or found.high is None:
        return None
    return 1 + found.low / 100, 1 + found.value / 100, 1 + found.high / 100
