"""Runs the rounds of a measurement, one block of every candidate each, and decides when to stop.

Checking an interval until it happens to be narrow makes it too narrow. It is therefore checked only after a few rounds, which are
planned before the run, each 1.5 times as late as the one before, and never before the least duration is over. A test on simulated
runs with drift measures the coverage that is left.
"""

from collections import Counter
from collections.abc import Callable, Container, Sequence

import numpy as np

from emca_deploy._progress import Progress
from emca_deploy.arrays import Float64Array
from emca_deploy.errors import EmcaError
from emca_deploy.harness.measure.candidate import Block, Candidate
from emca_deploy.harness.measure.protocol import FEWEST_PROCESSES, TOGETHER, Protocol
from emca_deploy.stats.estimates import median_ci

__all__ = ["INTERRUPTED", "interleave", "one_round", "planned_looks", "planned_renewals", "precise", "reason_to_stop"]

INTERRUPTED = "interrupted"
_SHORTEST, _LONGEST = 0.75, 1.25
"""Blocks vary in length at random: equal ones could synchronize with other periodic work of the machine."""

_FURTHER = 1.5
_FEWEST_ROUNDS = 10
_SLOW_BLOCKS = 12
"""Fewest blocks of each process where calls are longer than a block."""

_FAST_QUERIES = 100
"""MLPerf's least number of queries, for candidates that make that many in the least duration."""


def interleave(
    candidates: list[Candidate],
    protocol: Protocol,
    report: Progress,
    failed: Callable[[Candidate, EmcaError], None],
    renew: Callable[[], None],
    renewals: Container[int],
) -> str:
    """Measure all candidates in alternating blocks, and return the reason for the end.

    A candidate that fails is removed from the list, and `failed` is called with it and its error. After each round in `renewals`,
    `renew` gives all candidates new processes, and removes those that fail. `report` is called with (blocks done, blocks in
    total). An interrupt ends the rounds, and the blocks are kept, once every candidate has one.

    Raises:
        KeyboardInterrupt: the user interrupted before every candidate had a block.
        EmcaError: an error that `failed` raises.
    """
    rng = np.random.default_rng(protocol.seed)
    try:
        while candidates:
            one_round(candidates, protocol, rng, report, failed)
            reason = reason_to_stop(candidates, protocol) if candidates else None
            if reason is not None:
                return reason
            if candidates and min(len(candidate.blocks) for candidate in candidates) in renewals:
                renew()
    except KeyboardInterrupt:
        if not candidates or not all(candidate.blocks for candidate in candidates):
            raise
        return INTERRUPTED
    return "no candidate is left"


def one_round(
    candidates: list[Candidate],
    protocol: Protocol,
    rng: np.random.Generator,
    report: Progress,
    failed: Callable[[Candidate, EmcaError], None],
) -> None:
    """Run every turn of every candidate once, in random order; the arguments are as in `interleave`."""
    most_calls = max(1, protocol.max_samples // protocol.max_rounds)
    lead_calls = 1 if len(candidates) > 1 else 0  # because the other candidates have emptied the caches
    done = sum(candidate.all_blocks for candidate in candidates)
    turns = [(candidate, turn) for candidate in candidates for turn in candidate.turns]
    order = [turns[index] for index in rng.permutation(len(turns))]
    for place, (candidate, turn) in enumerate(order, start=1):
        if candidate not in candidates:  # it failed in this round
            continue
        try:
            candidate.run_turn(turn, protocol.block_s * rng.uniform(_SHORTEST, _LONGEST), most_calls, lead_calls)
        except EmcaError as exc:
            candidates.remove(candidate)
            failed(candidate, exc)
        report(done + place, protocol.max_rounds * protocol.stages * len(order))
    if protocol.co_run and len(candidates) == 2:
        _run_together(candidates, protocol.block_s * rng.uniform(_SHORTEST, _LONGEST), most_calls, failed)


def _run_together(
    candidates: list[Candidate], seconds: float, most_calls: int, failed: Callable[[Candidate, EmcaError], None]
) -> None:
    """Run a block of every candidate at the same time, and keep them."""
    started = []
    for candidate in list(candidates):
        done = candidate.others.setdefault(TOGETHER, [])
        index, worker = candidate.next_worker(len(done))
        try:
            worker.start_block(seconds, most_calls, lead_calls=1)
            started.append((candidate, index, worker))
        except EmcaError as exc:
            candidates.remove(candidate)
            failed(candidate, exc)
    for candidate, index, worker in started:
        try:
            latencies_ns = worker.block(seconds, 1, most_calls, lead_calls=1)
            candidate.others[TOGETHER].append(Block(index, latencies_ns / 1e6, worker.device_ms, worker.window_ns))
        except EmcaError as exc:
            candidates.remove(candidate)
            failed(candidate, exc)


def planned_looks(first: int, last: int) -> tuple[int, ...]:
    """Return the rounds after which to check the intervals: `first`, at least 10, then 1.5 times as many each, below `last`."""
    looks = []
    look = float(max(first, _FEWEST_ROUNDS))
    while round(look) < last:
        looks.append(round(look))
        look *= _FURTHER
    return tuple(looks)


def planned_renewals(protocol: Protocol, at_once: int) -> frozenset[int]:
    """Return the rounds after which every candidate gets new processes: evenly in the least duration, then at every check.

    The check comes before the renewal and may end the run instead. There are no renewals where all processes of a candidate are
    among the `at_once` that live together.
    """
    sets = -(-protocol.processes // at_once)
    if sets < 2:
        return frozenset()
    shares = (round(protocol.rounds * number / sets) for number in range(1, sets))
    looks = planned_looks(protocol.rounds, protocol.max_rounds) if protocol.max_rounds > protocol.rounds else ()
    return frozenset(share for share in shares if share) | frozenset(looks)


def precise(blocks: Sequence[Float64Array], goal: float, seed: int, processes: Sequence[int] | None = None) -> bool:
    """Return whether half the width of the median's 95 % interval is at most `goal`, as a share of the median."""
    low, high = median_ci(blocks, seed, processes)
    middle = (low + high) / 2
    return (high - low) / 2 <= goal * middle


def reason_to_stop(candidates: Sequence[Candidate], protocol: Protocol) -> str | None:
    """Return why the run ends after the rounds so far, or None where it continues."""
    rounds = min(len(candidate.blocks) for candidate in candidates)
    if protocol.max_duration_s is None or protocol.max_duration_s <= protocol.duration_s:
        return "fixed duration" if rounds >= protocol.rounds or _slow_and_measured(candidates, protocol) else None
    # Calls longer than a block use up the time before all rounds are done.
    time_is_over = sum(candidate.wall_s for candidate in candidates) >= protocol.max_duration_s * len(candidates)
    if rounds >= protocol.max_rounds or time_is_over:
        return "time limit"
    if rounds not in planned_looks(protocol.rounds, protocol.max_rounds):
        return None
    if all(_well_known(candidate, protocol) for candidate in candidates):
        return f"interval within {protocol.interval_goal * 100:g} %"
    return None


def _slow_and_measured(candidates: Sequence[Candidate], protocol: Protocol) -> bool:
    """Return whether calls longer than a block have used up the duration, and every process has blocks enough for an interval.

    Runs with one process of each candidate keep their rounds: `tune` plans with them.
    """
    if protocol.processes < FEWEST_PROCESSES:
        return False
    measured_s = sum(sum(block.sum() for block in each.calls_ms) / each.in_flight for each in candidates) / 1000
    is_slow = measured_s > protocol.block_s * sum(each.calls for each in candidates)
    if not is_slow or measured_s < protocol.duration_s * len(candidates):
        return False
    blocks = [Counter(block.process for block in each.blocks) for each in candidates]
    return all(len(each) >= protocol.processes and min(each.values()) >= _SLOW_BLOCKS for each in blocks)


def _well_known(candidate: Candidate, protocol: Protocol) -> bool:
    offline = protocol.scenario == "offline"
    a_call_s = candidate.wall_s * candidate.in_flight / candidate.calls
    queries = max(protocol.min_queries, _FAST_QUERIES) if a_call_s * _FAST_QUERIES < protocol.duration_s else protocol.min_queries
    if candidate.calls < queries:
        return False
    blocks = candidate.headline_ms(protocol.batch, offline=offline)
    return precise(blocks, protocol.interval_goal, protocol.seed, candidate.block_processes)
