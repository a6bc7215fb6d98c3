"""What a team should do with the result: one sentence, and what to mind about it."""

from dataclasses import dataclass
from typing import Literal

from emca_deploy.reporting.formats import fixed, interval, plain, signed
from emca_deploy.results.deploy import DeployCandidate, DeployReport

__all__ = ["DROP_LIMIT", "Verdict", "decide", "drop_of"]

DROP_LIMIT = 0.5
"""Points of top-1 that a recommended candidate may lose."""

AGREEMENT_LIMIT = 95.0
"""Percent of images; below it an equal top-1 may be luck."""


@dataclass(frozen=True)
class Verdict:
    """The decision.

    Attributes:
        level: "recommended"; "caution" where the evidence is thin; "keep" where nothing beats the baseline; "unknown" where the
            images had no labels.
        sentence: for people.
        cautions: sentences on what the evidence leaves open.
        candidate: the name of what to deploy; None where nothing can be said.
    """

    level: Literal["recommended", "caution", "keep", "unknown"]
    sentence: str
    cautions: tuple[str, ...]
    candidate: str | None


def drop_of(candidate: DeployCandidate) -> float | None:
    """Return the points of top-1 lost against the baseline; None without labels."""
    reference = candidate.accuracy.reference
    return None if reference is None else reference.top1_drop


def decide(report: DeployReport) -> Verdict:
    """Recommend the fastest candidate that loses at most `DROP_LIMIT` points of top-1, if it is faster than the baseline."""
    others = sorted((c for c in report.candidates if c.name != report.baseline), key=lambda c: c.latency.latency_ms.p50)
    faster = [c for c in others if c.speedup > 1]
    base = plain(report.baseline)
    if not faster:
        return Verdict("keep", f"Keep {base}: no other candidate is faster.", _unstable(report, None), report.baseline)
    if any(drop_of(c) is None for c in faster):
        return _without_labels(report, faster[0])
    fitting = [c for c in faster if (drop_of(c) or 0.0) <= DROP_LIMIT]
    if not fitting:
        sentence = (
            f"Keep {base}: {_what(faster[0])} is {_ratio(faster[0])} faster but at {_change(faster[0])} of top-1, "
            f"beyond the {DROP_LIMIT:g} allowed."
        )
        return Verdict("keep", sentence, _unstable(report, None), report.baseline)
    return _recommend(report, fitting, [c for c in faster if c not in fitting])


def _recommend(report: DeployReport, fitting: list[DeployCandidate], losing: list[DeployCandidate]) -> Verdict:
    best = fitting[0]
    cautions = [*_doubts(best), *_unstable(report, best)]
    surely_faster = best.speedup_ci95 is not None and best.speedup_ci95[0] > 1
    ending = "recommended" if not cautions else "the best candidate, with the reservations below"
    if not surely_faster:
        ending = f"no clear gain, so keep {plain(report.baseline)} unless a longer measurement says otherwise"
    sentence = (
        f"{_what(best)}: {_ratio(best)} faster than {plain(report.baseline)} at {_change(best)} of top-1{_range(best)}; {ending}."
    )
    notes = [*cautions, *_as_fast(best, fitting[1:]), *_faster_but(best, losing)]
    level: Literal["recommended", "caution", "keep"] = "caution" if cautions else "recommended"
    if not surely_faster:
        return Verdict("keep", sentence, tuple(notes), report.baseline)
    return Verdict(level, sentence, tuple(notes), best.name)


def _without_labels(report: DeployReport, best: DeployCandidate) -> Verdict:
    reference = best.accuracy.reference
    agreement = f" and picks the same class for {fixed(reference.agreement)}% of the images" if reference else ""
    sentence = (
        f"{_what(best)} is {_ratio(best)} faster than {plain(report.baseline)}{agreement}; "
        "its accuracy is unknown, because the validation images have no labels."
    )
    return Verdict("unknown", sentence, ("Validate on labelled images before deploying it.", *_unstable(report, best)), None)


def _doubts(best: DeployCandidate) -> list[str]:
    """Return what the intervals of the best candidate leave open."""
    doubts = []
    reference = best.accuracy.reference
    limits = None if reference is None else reference.top1_drop_ci95
    images = f"{best.accuracy.samples:,} images"
    if limits is None:
        doubts.append("The drop has no interval: validate again.")
    elif limits[1] > DROP_LIMIT:
        doubts.append(
            f"{images} cannot rule out a larger loss: the drop's 95% interval is {interval(limits)} points; "
            f"validate on more images to be sure of {DROP_LIMIT:g}."
        )
    if reference is not None and reference.agreement < AGREEMENT_LIMIT:
        doubts.append(
            f"It picks another class than the baseline for {fixed(100 - reference.agreement)}% of the images, however little "
            "top-1 changed: look at which before replacing it."
        )
    if best.speedup_ci95 is None:
        doubts.append("The speed-up has no interval: measure again.")
    elif best.speedup_ci95[0] <= 1:
        doubts.append(f"The speed-up's 95% interval is {interval(best.speedup_ci95)}: measure longer with --duration.")
    return doubts


def _unstable(report: DeployReport, best: DeployCandidate | None) -> tuple[str, ...]:
    shaky = [c for c in report.candidates if not c.latency.stable and (best is None or c.name in (best.name, report.baseline))]
    if not shaky:
        return ()
    names = " and ".join(plain(c.name) for c in shaky)
    return (
        f"The measurement of {names} was not stable (see the warnings): measure again on a quiet machine before relying on it.",
    )


def _as_fast(best: DeployCandidate, rest: list[DeployCandidate]) -> list[str]:
    """Name a candidate that may be as fast and loses less: a team may prefer it."""
    if best.speedup_ci95 is None:
        return []
    for other in rest:
        overlaps = other.speedup_ci95 is not None and other.speedup_ci95[1] >= best.speedup_ci95[0]
        if overlaps and (drop_of(other) or 0.0) < (drop_of(best) or 0.0):
            return [f"{_what(other)} may be as fast (the intervals overlap), at {_change(other)}."]
    return []


def _faster_but(best: DeployCandidate, losing: list[DeployCandidate]) -> list[str]:
    return [
        f"{_what(c)} is faster still ({_ratio(c)}) but at {_change(c)}."
        for c in losing
        if c.latency.latency_ms.p50 < best.latency.latency_ms.p50
    ]


def _what(candidate: DeployCandidate) -> str:
    return plain(candidate.name)


def _ratio(candidate: DeployCandidate) -> str:
    return f"{fixed(candidate.speedup, 1 if candidate.speedup >= 2 else 2)}x"


def _change(candidate: DeployCandidate) -> str:
    return f"{signed(-(drop_of(candidate) or 0.0))} points"


def _range(candidate: DeployCandidate) -> str:
    """Return the interval of the change, which is that of the drop turned round."""
    reference = candidate.accuracy.reference
    if reference is None or reference.top1_drop_ci95 is None:
        return ""
    low, high = reference.top1_drop_ci95
    return f" (95% interval {signed(-high)} to {signed(-low)})"
