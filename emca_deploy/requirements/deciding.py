"""Decides about one requirement and one candidate by the interval of the figure."""

from dataclasses import replace

from emca_deploy.requirements.estimates import Estimate, Spread
from emca_deploy.results.requirements import FIGURES, Decision, Requirement, verdict_of_interval
from emca_deploy.stats.between_runs import DEFAULT_SPREAD

__all__ = ["DEFAULT", "decide"]

DEFAULT = Spread(
    DEFAULT_SPREAD, 0, f"{DEFAULT_SPREAD * 100:g} %, the default, since the history has too few runs of this machine"
)


def decide(requirement: Requirement, candidate: str, found: Estimate) -> Decision:
    """Return the decision about a candidate, with what would decide an undecided one."""
    verdict = verdict_of_interval(requirement, found.low, found.high)
    decision = Decision(
        requirement=requirement.text,
        candidate=candidate,
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
