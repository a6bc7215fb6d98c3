"""When to stop measuring: where the headline is known well enough, or the time is over.

Looking at an interval until it happens to be narrow makes it too narrow. So it is looked at in a few rounds only, planned before
the run and half as many again apart, and never before the least duration is over; the test on simulated runs that drift says
what is left of its coverage.
"""

from collections.abc import Sequence

from emca_deploy.arrays import Float64Array
from emca_deploy.harness.measure.candidate import Candidate
from emca_deploy.harness.measure.protocol import Protocol
from emca_deploy.stats.estimates import median_ci

__all__ = ["planned_looks", "planned_renewals", "precise", "reason_to_stop"]

_FURTHER = 1.5
_FEWEST_ROUNDS = 10
_FAST_QUERIES = 100
"""MLPerf's least number of queries, for candidates that make as many in the least duration."""


def planned_looks(first: int, last: int) -> tuple[int, ...]:
    """Return the rounds after which to look at the intervals: `first`, at least 10, then 1.5 times as many each, below `last`."""
    looks = []
    look = float(max(first, _FEWEST_ROUNDS))
    while round(look) < last:
        looks.append(round(look))
        look *= _FURTHER
    return tuple(looks)


def planned_renewals(protocol: Protocol, at_once: int) -> frozenset[int]:
    """Return the rounds after which every candidate goes on in new processes: evenly in the least duration, then at every look.

    A look comes before the renewal, and may end the run instead. `at_once` processes of a candidate live together; there are no
    renewals where those are all.
    """
    sets = -(-protocol.processes // at_once)
    if sets < 2:
        return frozenset()
    shares = (round(protocol.rounds * number / sets) for number in range(1, sets))
    looks = planned_looks(protocol.rounds, protocol.max_rounds) if protocol.max_rounds > protocol.rounds else ()
    return frozenset(share for share in shares if share) | frozenset(looks)


def precise(blocks: Sequence[Float64Array], goal: float, seed: int, processes: Sequence[int] | None = None) -> bool:
    """Return whether the median's 95 % interval ends within `goal`, a share of it, to both sides; see `stats.median_ci`."""
    low, high = median_ci(blocks, seed, processes)
    middle = (low + high) / 2
    return (high - low) / 2 <= goal * middle


def reason_to_stop(candidates: Sequence[Candidate], protocol: Protocol) -> str | None:
    """Return why the run is over after the rounds done so far, or None where it goes on."""
    rounds = min(len(candidate.blocks) for candidate in candidates)
    if protocol.max_duration_s is None or protocol.max_duration_s <= protocol.duration_s:
        return "fixed duration" if rounds >= protocol.rounds else None
    if rounds >= protocol.max_rounds or _time_is_over(candidates, protocol.max_duration_s):
        return "time limit"
    if rounds not in planned_looks(protocol.rounds, protocol.max_rounds):
        return None
    if all(_well_known(candidate, protocol) for candidate in candidates):
        return f"interval within {protocol.interval_goal * 100:g} %"
    return None


def _time_is_over(candidates: Sequence[Candidate], max_duration_s: float) -> bool:
    """Return whether calls longer than a block have used the time of all before their rounds are done."""
    return sum(candidate.wall_s for candidate in candidates) >= max_duration_s * len(candidates)


def _well_known(candidate: Candidate, protocol: Protocol) -> bool:
    offline = protocol.scenario == "offline"
    a_call_s = candidate.wall_s * candidate.in_flight / candidate.calls
    queries = max(protocol.min_queries, _FAST_QUERIES) if a_call_s * _FAST_QUERIES < protocol.duration_s else protocol.min_queries
    if candidate.calls < queries:
        return False
    blocks = candidate.headline_ms(protocol.batch, offline=offline)
    return precise(blocks, protocol.interval_goal, protocol.seed, candidate.block_processes)
