"""Runs the rounds: one block of every candidate each, in random order, until there is a reason to stop."""

from collections.abc import Callable, Container

import numpy as np

from emca_deploy._progress import Progress
from emca_deploy.errors import EmcaError
from emca_deploy.harness.measure.candidate import Candidate
from emca_deploy.harness.measure.protocol import Protocol
from emca_deploy.harness.measure.stopping import reason_to_stop

__all__ = ["INTERRUPTED", "interleave"]

INTERRUPTED = "interrupted"
_SHORTEST, _LONGEST = 0.75, 1.25
"""Blocks vary in length at random: equal ones could synchronize with other periodic work of the machine."""


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
        EmcaError: what `failed` raises.
    """
    rng = np.random.default_rng(protocol.seed)
    try:
        while candidates:
            _one_round(candidates, protocol, rng, report, failed)
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


def _one_round(
    candidates: list[Candidate],
    protocol: Protocol,
    rng: np.random.Generator,
    report: Progress,
    failed: Callable[[Candidate, EmcaError], None],
) -> None:
    most_calls = max(1, protocol.max_samples // protocol.max_rounds)
    lead_calls = 1 if len(candidates) > 1 else 0  # because the other candidates have emptied the caches
    done = sum(len(candidate.blocks) for candidate in candidates)
    order = [candidates[index] for index in rng.permutation(len(candidates))]
    for place, candidate in enumerate(order, start=1):
        try:
            candidate.run_block(protocol.block_s * rng.uniform(_SHORTEST, _LONGEST), most_calls, lead_calls)
        except EmcaError as exc:
            candidates.remove(candidate)
            failed(candidate, exc)
        report(done + place, protocol.max_rounds * len(order))
