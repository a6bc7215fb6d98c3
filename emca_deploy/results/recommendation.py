"""Decides from a deployment's report which candidate to use."""

from dataclasses import dataclass
from typing import Literal

from emca_deploy.results.deploy import DeployCandidate, DeployReport
from emca_deploy.results.figures import figures_of, worst_figure
from emca_deploy.results.gate import Gate

__all__ = [
    "AGREEMENT_LIMIT",
    "DEPLOY_GATE",
    "Doubt",
    "Level",
    "Loss",
    "Recommendation",
    "chosen_names",
    "drop_of",
    "loss_of",
    "recommend",
]

DEPLOY_GATE = Gate(0.5)
"""Gate of a recommended candidate."""

AGREEMENT_LIMIT = 95.0
"""Percent of images or detections; with less agreement an equal top-1 or AP may be luck."""

Level = Literal["recommended", "caution", "keep", "unknown"]
Loss = Literal["within", "above", "unsure"]
Doubt = Literal["drop not measured", "drop unsure", "agreement", "speed-up not measured", "speed-up unsure"]


@dataclass(frozen=True)
class Recommendation:
    """The recommendation for a deployment.

    Attributes:
        level: Strength: "recommended"; "caution" where the evidence is weak; "keep" where nothing beats the baseline; "unknown"
            where the images had no labels.
        use: Name of the candidate to deploy; None where none can be recommended.
        best: Fastest candidate that is shown to be within the gate; where none is, the fastest one that may be; where none may be
            or labels are missing, the fastest; None where none is faster than the baseline.
        doubts: Open questions about `best`.
        unstable: Candidates in the recommendation, baseline included, whose measurement was not stable.
        as_fast: Candidate that may be as fast as `best`, has a smaller drop and is as surely within the gate.
        too_lossy: Candidates that are faster than `best`, and above the gate or not shown to be within it.
    """

    level: Level
    use: str | None
    best: DeployCandidate | None
    doubts: tuple[Doubt, ...] = ()
    unstable: tuple[DeployCandidate, ...] = ()
    as_fast: DeployCandidate | None = None
    too_lossy: tuple[DeployCandidate, ...] = ()


def drop_of(candidate: DeployCandidate) -> float | None:
    """Return the largest drop against the baseline, points of top-1 or AP; None without labels."""
    return worst_figure(candidate.accuracy).drop


def recommend(report: DeployReport) -> Recommendation:
    """Choose the fastest candidate whose interval of the drop is within `DEPLOY_GATE`, if it is faster than the baseline."""
    others = sorted((c for c in report.candidates if c.name != report.baseline), key=lambda c: c.latency.latency_ms.p50)
    faster = [c for c in others if c.speedup > 1]
    if not faster:
        return Recommendation("keep", report.baseline, None, unstable=_unstable(report, None))
    if any(drop_of(c) is None for c in faster):
        return Recommendation("unknown", None, faster[0], unstable=_unstable(report, faster[0]))
    within = [c for c in faster if loss_of(c) == "within"] or [c for c in faster if _loss(c) <= DEPLOY_GATE.max_drop]
    if not within:
        too_lossy = (faster[0],)
        return Recommendation("keep", report.baseline, faster[0], unstable=_unstable(report, None), too_lossy=too_lossy)
    best = within[0]
    doubts, unstable = _doubts(best), _unstable(report, best)
    surely_faster = best.speedup_ci95 is not None and best.speedup_ci95[0] > 1
    level: Level = "keep" if not surely_faster else "caution" if doubts or unstable else "recommended"
    return Recommendation(
        level,
        best.name if surely_faster else report.baseline,
        best,
        doubts,
        unstable,
        next((c for c in within[1:] if _may_be_as_fast(c, best) and _loss(c) < _loss(best)), None),
        tuple(c for c in faster if c not in within and c.latency.latency_ms.p50 < best.latency.latency_ms.p50),
    )


def chosen_names(report: DeployReport) -> frozenset[str]:
    """Return the names of the candidates to deploy: the best one of each group under requirements, if there are any."""
    if report.requirements:
        return frozenset(group.best for group in report.groups if group.best is not None)
    use = recommend(report).use
    return frozenset() if use is None else frozenset((use,))


def loss_of(candidate: DeployCandidate) -> Loss:
    """Return what the intervals of a candidate's drops show about `DEPLOY_GATE`."""
    figures = figures_of(candidate.accuracy)
    if any(figure.drop_ci95 is not None and figure.drop_ci95[0] > DEPLOY_GATE.max_drop for figure in figures):
        return "above"
    shown = all(figure.drop_ci95 is not None and figure.drop_ci95[1] <= DEPLOY_GATE.max_drop for figure in figures)
    return "within" if shown and _loss(candidate) <= DEPLOY_GATE.max_drop else "unsure"


def _loss(candidate: DeployCandidate) -> float:
    return drop_of(candidate) or 0.0


def _doubts(best: DeployCandidate) -> tuple[Doubt, ...]:
    doubts: list[Doubt] = []
    reference = best.accuracy.reference
    ends = [None if figure.drop_ci95 is None else figure.drop_ci95[1] for figure in figures_of(best.accuracy)]
    if None in ends:
        doubts.append("drop not measured")
    elif any(end is not None and end > DEPLOY_GATE.max_drop for end in ends):
        doubts.append("drop unsure")
    if reference is not None and reference.agreement is not None and reference.agreement < AGREEMENT_LIMIT:
        doubts.append("agreement")
    if best.speedup_ci95 is None:
        doubts.append("speed-up not measured")
    elif best.speedup_ci95[0] <= 1:
        doubts.append("speed-up unsure")
    return tuple(doubts)


def _unstable(report: DeployReport, best: DeployCandidate | None) -> tuple[DeployCandidate, ...]:
    names = None if best is None else (best.name, report.baseline)
    return tuple(c for c in report.candidates if not c.latency.stable and (names is None or c.name in names))


def _may_be_as_fast(other: DeployCandidate, best: DeployCandidate) -> bool:
    return other.speedup_ci95 is not None and best.speedup_ci95 is not None and other.speedup_ci95[1] >= best.speedup_ci95[0]
