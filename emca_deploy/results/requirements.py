"""Requirements on the figures of a result, such as "p99<=8ms": their text, and the report of `gate`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from emca_deploy.errors import InputError, UnknownNameError
from emca_deploy.results.codec import version

__all__ = [
    "CONFIDENCE",
    "FIGURES",
    "Decision",
    "Figure",
    "Requirement",
    "RequirementsReport",
    "Verdicts",
    "parse_requirements",
    "verdict_of_interval",
]

SCHEMA_VERSION = 1

CONFIDENCE = 0.998
"""Confidence of the intervals that decide: an end is beyond the true value in one of 1,000 cases."""

Verdicts = Literal["pass", "fail", "undecided"]
Operator = Literal["<=", ">="]

_TIMES = {"ms": 1.0, "us": 1e-3, "s": 1e3}
_EXAMPLE = 'for example --require "drop<=0.2, p99<=8ms, slowdown<=3%"'
_FORM = re.compile(r"\s*([A-Za-z][\w.-]*)\s*(<=|>=)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*")


@dataclass(frozen=True)
class Figure:
    """A figure that a requirement may limit.

    Attributes:
        unit: Unit of the figure in the report.
        units: Factor of each unit that a requirement may use; "" where the unit may be left out.
        measured_by: Command that measures it.
    """

    name: str
    unit: str
    units: Mapping[str, float]
    measured_by: str


_PROFILE = "profile ARTIFACT -o result.json"
_VALIDATE = "validate ARTIFACT --data PATH --reference MODEL --json > result.json"
_POINTS = {"": 1.0, "points": 1.0, "pt": 1.0}
_PERCENT = {"": 1.0, "%": 1.0}

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure("drop", "points", _POINTS, _VALIDATE),
        Figure("mask-drop", "points", _POINTS, _VALIDATE),
        Figure("top1", "%", _PERCENT, _VALIDATE),
        Figure("agreement", "%", _PERCENT, _VALIDATE),
        *(Figure(name, "ms", _TIMES, _PROFILE) for name in ("p50", "p90", "p95", "p99", "p99.9")),
        Figure("throughput", "images/s", {"images/s": 1.0, "/s": 1.0}, _PROFILE),
        Figure("slowdown", "%", _PERCENT, "profile BASELINE ARTIFACT -o result.json, or gate with --baseline"),
        Figure("energy", "mJ", {"mJ": 1.0, "uJ": 1e-3, "J": 1e3}, f"{_PROFILE}, on a machine with a power meter"),
        Figure("size", "MiB", {"MiB": 1.0, "KiB": 2.0**-10, "GiB": 2.0**10, "MB": 1e6 / 2**20, "kB": 1e3 / 2**20}, _PROFILE),
    )
}
"""Every figure by its name. `drop` is of top-1, or of a detector's box AP; `size` is of the artifact's file."""


@dataclass(frozen=True)
class Requirement:
    """A limit on a figure.

    Attributes:
        text: Text of the requirement without blanks, such as "p99<=8ms".
        limit: Limit in the figure's unit.
    """

    text: str
    figure: str
    operator: Operator
    limit: float


@dataclass(frozen=True)
class Decision:
    """The decision about one requirement and one candidate.

    Attributes:
        requirement: Text of the requirement.
        candidate: Name of the candidate.
        value: Estimate of the figure.
        low: Lower end of the interval; None where the measurement gives none.
        high: Upper end of the interval; None where the measurement gives none.
        limit: Limit in the unit of the figure.
        verdict: "pass" where the whole interval is within the limit, "fail" where none of it is, else "undecided".
        method: How the interval was made.
        baseline: Name of the candidate that it is compared with; None for a figure without comparison.
        images_needed: Approximate number of similar images that would decide; None where unknown or decided.
        seconds_needed: Approximate seconds of measuring that would decide; None where unknown or decided.
        hint: What to do to decide, in words; empty where it is decided.
    """

    requirement: str
    candidate: str
    figure: str
    unit: str
    value: float
    low: float | None
    high: float | None
    limit: float
    verdict: Verdicts
    method: str
    baseline: str | None = None
    images_needed: int | None = None
    seconds_needed: float | None = None
    hint: str = ""


@dataclass(frozen=True)
class RequirementsReport:
    """The output of `gate --json`.

    Attributes:
        passed: Whether no decision fails, and none is undecided unless that is allowed.
        confidence_percent: Confidence of the intervals, percent.
        allow_undecided: Whether undecided requirements pass.
        results: Result files that were read.
        notes: Remarks on the decisions, a line each.
    """

    passed: bool
    confidence_percent: float
    allow_undecided: bool
    results: tuple[str, ...]
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...] = ()
    schema_version: int = version(SCHEMA_VERSION)

    def of(self, verdict: Verdicts) -> tuple[Decision, ...]:
        """Return the decisions with a verdict."""
        return tuple(each for each in self.decisions if each.verdict == verdict)


def verdict_of_interval(requirement: Requirement, low: float | None, high: float | None) -> Verdicts:
    """Return what an interval of the figure shows about a requirement."""
    if requirement.operator == "<=":
        good, bad = high is not None and high <= requirement.limit, low is not None and low > requirement.limit
    else:
        good, bad = low is not None and low >= requirement.limit, high is not None and high < requirement.limit
    return "pass" if good else "fail" if bad else "undecided"


def parse_requirements(texts: Sequence[str]) -> tuple[Requirement, ...]:
    """Return the requirements in texts such as "drop<=0.2, p99<=8ms".

    Raises:
        InputError: a part is no requirement, or there is none.
        UnknownNameError: a figure or unit is unknown.
    """
    found = tuple(_parse(part) for text in texts for part in text.split(",") if part.strip())
    if not found:
        raise InputError("--require: names no requirement", _EXAMPLE)
    return found


def _parse(part: str) -> Requirement:
    match = _FORM.fullmatch(part)
    if match is None:
        raise InputError(f"--require {part.strip()}: is not FIGURE<=LIMIT or FIGURE>=LIMIT", _EXAMPLE)
    name, operator, number, unit = match.groups()
    if name not in FIGURES:
        raise UnknownNameError.of("figure", name, FIGURES, f"--require takes {', '.join(FIGURES)}")
    figure, limit = FIGURES[name], float(number)
    if unit not in figure.units:
        units = [each for each in figure.units if each]
        if not unit:
            raise InputError(f"--require {part.strip()}: has no unit", f"write {name}{operator}{number}{units[0]}")
        near = "; ".join(each for each in units if each.lower() == unit.lower())
        raise UnknownNameError.of(
            f"unit of {name}", unit, units, f"{'nearest: ' + near + '; ' if near else ''}takes {', '.join(units)}"
        )
    if not isfinite(limit):
        raise InputError(f"--require {part.strip()}: the limit is not a finite number", _EXAMPLE)
    return Requirement(f"{name}{operator}{number}{unit}", name, "<=" if operator == "<=" else ">=", limit * figure.units[unit])
