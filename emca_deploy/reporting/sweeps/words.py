"""The choice among the cells of a sweep in words."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from emca_deploy.reporting.formats import NONE, fixed, interval, plain, signed, significant
from emca_deploy.reporting.requirements import interval_text, value_text
from emca_deploy.results.requirements import Decision
from emca_deploy.results.sweep import SweepRow, ms_per_image
from emca_deploy.results.sweep_choice import CellChange, CellVerdict, GroupChoice, Outcome, SweepDocument

__all__ = [
    "MOST_OPEN",
    "OUTCOMES",
    "Choice",
    "Rejected",
    "cautions_of",
    "change_of",
    "choice_of",
    "counts_of",
    "level_of",
    "place_of",
    "reason_of",
    "sentence_of",
]

OUTCOMES = {
    "best": "recommended",
    "close": "keeps all",
    "slower": "keeps all",
    "undecided": "undecided",
    "fails": "fails",
    "front": "on the front",
    "dominated": "dominated",
    "failed": "failed",
    "pending": "not measured",
}
"""Label of each outcome."""

_COUNTED: dict[Outcome, str] = {
    "close": "about as fast",
    "slower": "slower",
    "undecided": "undecided",
    "fails": "failing a requirement",
    "dominated": "dominated",
    "failed": "failed",
    "pending": "not measured",
}


MOST_OPEN = 12
"""Most other cells whose reasons are shown without a click."""


@dataclass(frozen=True)
class Rejected:
    """A cell or candidate that is not chosen, and why."""

    name: str
    outcome: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """The choice in one group in words.

    Attributes:
        place: What its cells have in common.
        level: Class of the verdict.
        lost: Every cell that is not recommended.
        opened: Whether their reasons are shown without a click.
        counts: Number of them by the kind of reason.
    """

    place: str
    level: str
    sentence: str
    cautions: list[str]
    lost: list[Rejected]
    opened: bool
    counts: str


def choice_of(document: SweepDocument, group: GroupChoice, names: Mapping[str, str], noun: str = "cell") -> Choice:
    """Return the choice in a group in words; `noun` is what a cell is called."""
    rows = _rows(document)
    lost = [
        Rejected(names[each.key], OUTCOMES[each.outcome], reason_of(each, rows[each.key], names))
        for each in group.cells
        if each.outcome not in ("best", "front")
    ]
    return Choice(
        place_of(group),
        level_of(document, group),
        sentence_of(document, group, names, noun),
        cautions_of(document, group, names),
        lost,
        len(lost) <= MOST_OPEN,
        counts_of(group),
    )


def place_of(group: GroupChoice) -> str:
    """Return what the cells of a group have in common: "cpu, single-stream"."""
    machine = f" of {plain(group.machine)}" if group.machine else ""
    return f"{plain(group.target)}{machine}, {group.scenario}"


def level_of(document: SweepDocument, group: GroupChoice) -> str:
    """Return "recommended", "caution" (no cell keeps all requirements) or "keep" (none is stated)."""
    if not document.requirements:
        return "keep"
    return "caution" if group.best is None else "recommended"


def sentence_of(document: SweepDocument, group: GroupChoice, names: Mapping[str, str], noun: str = "cell") -> str:
    """Return the sentence with the recommendation; `noun` is what a cell is called."""
    if not document.requirements:
        front = [each for each in group.cells if each.outcome == "front"]
        finished = sum(each.outcome in ("front", "dominated") for each in group.cells)
        return f"No requirement is stated. {len(front)} of {_counted(finished, noun)} are on the Pareto front."
    if group.best is not None:
        row = _rows(document)[group.best]
        figures = [f"{significant(ms_per_image(row))} ms per image"]
        if row.accuracy is not None:
            figures.append(f"{row.metric} {fixed(row.accuracy)} %")
        return f"{names[group.best]}: the fastest that keeps all requirements, at {', '.join(figures)}."
    counts = Counter(each.outcome for each in group.cells)
    if counts["undecided"]:
        return f"No {noun} is shown to keep all requirements; {_counted(counts['undecided'], noun)} may."
    return f"No {noun} keeps all requirements."


def counts_of(group: GroupChoice) -> str:
    """Return what became of the cells that are not chosen: "3 slower, 1 failing a requirement"."""
    counts = Counter(each.outcome for each in group.cells)
    return ", ".join(f"{counts[outcome]} {words}" for outcome, words in _COUNTED.items() if counts[outcome])


def cautions_of(document: SweepDocument, group: GroupChoice, names: Mapping[str, str]) -> list[str]:
    """Return sentences about what to consider before the recommended cell is used."""
    if not document.requirements:
        return ['State requirements for a recommendation, for example --require "drop<=0.5, p99<=8ms".']
    rows, lines = _rows(document), []
    if group.best is not None and rows[group.best].stable is False:
        lines.append("Its measurement was not stable: measure it again on an idle machine before you rely on it.")
    close = [names[each.key] for each in group.cells if each.outcome == "close"]
    if close:
        lines.append(f"May be as fast: {', '.join(close[:3])}{_and_more(len(close) - 3)}.")
    if group.most_accurate not in (None, group.best):
        row = rows[str(group.most_accurate)]
        name = names[row.key]
        lines.append(f"No requirement limits the accuracy: {name} has the highest, {row.metric} {fixed(row.accuracy)} %.")
    return lines


def reason_of(verdict: CellVerdict, row: SweepRow, names: Mapping[str, str]) -> str:
    """Return why a cell was not chosen; "" for the chosen one."""
    if verdict.outcome in ("failed", "pending"):
        said = plain(" ".join(row.reason.split())) or ("the cell failed" if verdict.outcome == "failed" else "not measured yet")
        return said + _predicted(row)
    if verdict.outcome in ("fails", "undecided"):
        kind = "fail" if verdict.outcome == "fails" else "undecided"
        parts = [_decided(each) for each in verdict.decisions if each.verdict == kind]
        if kind == "undecided":
            parts += [f"{each.requirement}: {plain(each.reason)}" for each in verdict.unknown]
        return "; ".join(parts)
    if verdict.against is None:
        return ""
    return _slower(verdict, row, names[verdict.against])


def change_of(change: CellChange) -> tuple[str, str, str]:
    """Return the ratio of times with its interval, what it shows, and the change of the accuracy, in words."""
    points = NONE if change.accuracy_change is None else signed(change.accuracy_change)
    if change.time_ratio is None:
        return NONE, "not comparable", points
    low, ratio, high = change.time_ratio
    verdict = "faster" if high < 1 else "slower" if low > 1 else "no difference shown"
    return f"{fixed(ratio)} ({interval((low, high))})", verdict, points


def _predicted(row: SweepRow) -> str:
    if row.predicted_ms is None or row.predicted_ci95_ms is None:
        return ""
    low, high = map(significant, row.predicted_ci95_ms)
    return f"; predicted {significant(row.predicted_ms)} ms a call ({low} to {high})"


def _slower(verdict: CellVerdict, row: SweepRow, other: str) -> str:
    if verdict.time_ratio is None:
        return f"takes longer per image than {other}, by the estimate"
    low, ratio, high = verdict.time_ratio
    times = f"{fixed(ratio)} times the time per image of {other} ({interval((low, high))})"
    if verdict.outcome == "dominated":
        times += ", and not more accurate" if row.accuracy is not None else ""
    return f"{times}: may be as fast" if low <= 1 else times


def _decided(decision: Decision) -> str:
    return f"{decision.requirement}: {value_text(decision)} ({interval_text(decision)})"


def _rows(document: SweepDocument) -> dict[str, SweepRow]:
    return {row.key: row for row in document.sweep.cells}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _and_more(number: int) -> str:
    return f" and {number} more" if number > 0 else ""
