"""The rounds of a run: one block of every candidate each, in random order, until there is a reason to stop."""

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
"""Blocks differ in length by chance: those of one length fall into step with whatever else the machine does at that pace."""


def interleave(
    candidates: list[Candidate],
    protocol: Protocol,
    report: Progress,
    failed: Callable[[Candidate, EmcaError], None],
    renew: Callable[[], None] = lambda: None,
    renewals: Container[int] = (),
) -> str:
    """Measure all candidates in blocks that alternate, and return why it ended.

    An interrupt ends it as well, once every candidate has a block: what was measured by then is worth keeping. Candidates are
    warm; one that fails is taken out of the list, and `failed` is called with it and its error. After each of the rounds
    `renewals`, `renew` lets all go on in new processes; it takes those that fail out of the list. `report` is called with (blocks
    done, blocks in all).

    Raises:
        KeyboardInterrupt: before every candidate has a block.
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
    lead_calls = 1 if len(candidates) > 1 else 0  # the others have emptied the caches
    done = sum(len(candidate.blocks) for candidate in candidates)
    order = [candidates[index] for index in rng.permutation(len(candidates))]
    for place, candidate in enumerate(order, start=1):
        try:
            candidate.run_block(protocol.block_s * rng.uniform(_SHORTEST, _LONGEST), most_calls, lead_calls)
        except EmcaError as exc:
            candidates.remove(candidate)
            failed(candidate, exc)
        report(done + place, protocol.max_rounds * len(order))
