"""Finds the highest rate at which 99.9 % of a candidate's frames meet a deadline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from emca_deploy._progress import Progress
from emca_deploy.errors import EmcaError
from emca_deploy.harness.measure.candidate import Candidate, PacedBlock
from emca_deploy.harness.measure.protocol import SEARCH_STAGES, Protocol, Turn
from emca_deploy.harness.measure.rounds import INTERRUPTED, one_round
from emca_deploy.results.load import HighestRate
from emca_deploy.stats.confidence import percentile_bound

__all__ = ["FOUND", "RateSearch", "search_rates"]

FOUND = "highest rate found"

_CONFIRMATIONS = 3
_HALVINGS = SEARCH_STAGES - _CONFIRMATIONS
_STEP_DOWN = 0.9
_PERCENT = 99.9
_ENOUGH_FRAMES = 3_200
"""Frames of which 99.9 % can be shown to meet a deadline, if all do; blocks vary in length."""

_LONGEST = 12
"""Factor on the rounds for confirming a rate with enough frames."""


@dataclass
class RateSearch:
    """The search of one candidate: halve the range of rates, then confirm the best rate with frames of its own.

    The best of several measured rates is partly the luckiest, so the frames that chose it do not count.

    Attributes:
        low_per_s: Highest rate so far that met the deadline; 0 if none.
        high_per_s: Lowest rate so far that did not, at first the calls per second back to back.
        tried_per_s: Rates so far, in order.
        result: The result, once the search has ended.
    """

    candidate: Candidate
    deadline_ms: float
    low_per_s: float
    high_per_s: float
    tried_per_s: list[float] = field(default_factory=list)
    result: HighestRate | None = None

    @classmethod
    def of(cls, candidate: Candidate, deadline_ms: float) -> "RateSearch":
        """Return the search of a candidate whose calls back to back are measured."""
        call_ms = float(np.median(np.concatenate(candidate.calls_ms)))
        search = cls(candidate, deadline_ms, 0.0, 1000 / call_ms)
        if call_ms > deadline_ms:
            search._end(None, shown=False)
        return search

    @property
    def confirms(self) -> bool:
        """Whether the next rate confirms the best one."""
        return len(self.tried_per_s) >= _HALVINGS

    def next_rate(self) -> float | None:
        """Return the next rate to try, and forget its earlier frames; None at the end."""
        if self.confirms and self.low_per_s == 0:
            self._end(None, shown=False)
        if self.result is not None:
            return None
        rate = self.low_per_s if self.confirms else _rounded((self.low_per_s + self.high_per_s) / 2)
        self.tried_per_s.append(rate)
        self.candidate.paced[rate] = []
        return rate

    def judge(self) -> None:
        """Decide about the rate that was tried last."""
        rate = self.tried_per_s[-1]
        meets, shown = meets_deadline(self.candidate.paced[rate], self.deadline_ms)
        if len(self.tried_per_s) <= _HALVINGS:
            self.low_per_s, self.high_per_s = (rate, self.high_per_s) if meets else (self.low_per_s, rate)
        elif meets:
            self._end(rate, shown=shown)
        elif len(self.tried_per_s) == SEARCH_STAGES:
            self._end(None, shown=False)
        else:
            self.low_per_s = _rounded(_STEP_DOWN * rate)

    def _end(self, rate_per_s: float | None, *, shown: bool) -> None:
        self.result = HighestRate(rate_per_s, shown, tuple(self.tried_per_s))


def meets_deadline(blocks: Sequence[PacedBlock], deadline_ms: float) -> tuple[bool, bool]:
    """Return whether 99.9 % of the frames meet a deadline, and whether the bound of p99.9 shows it."""
    latency_ms = np.sort(np.concatenate([block.frames.latency_ms for block in blocks]))
    bound = percentile_bound(latency_ms, _PERCENT)
    if bound is not None:
        return bound <= deadline_ms, bound <= deadline_ms
    return bool((latency_ms > deadline_ms).mean() <= 1 - _PERCENT / 100), False


def search_rates(
    candidates: list[Candidate],
    protocol: Protocol,
    report: Progress,
    failed: Callable[[Candidate, EmcaError], None],
) -> tuple[dict[str, HighestRate], str]:
    """Return each candidate's highest rate that meets the protocol's deadline, and the reason for the end.

    The candidates' blocks alternate, each at the rate that its search tries. The arguments are as in `rounds.interleave`; calls
    back to back are measured already. After an interrupt, searches that have not ended have no result.
    """
    assert protocol.deadline_ms is not None
    rng = np.random.default_rng(protocol.seed)
    searches = [RateSearch.of(candidate, protocol.deadline_ms) for candidate in candidates]
    stop = FOUND
    try:
        while trying := _next_stage(searches, candidates):
            rounds = max(_rounds(search, protocol) for search in trying)
            for _ in range(rounds):
                one_round(candidates, protocol, rng, report, failed)
            for search in trying:
                if search.candidate in candidates:
                    search.judge()
    except KeyboardInterrupt:
        stop = INTERRUPTED
    return {search.candidate.name: search.result for search in searches if search.result is not None}, stop


def _next_stage(searches: Sequence[RateSearch], candidates: Sequence[Candidate]) -> list[RateSearch]:
    """Give every candidate its next turn, and return the searches that go on."""
    trying = []
    for search in searches:
        if search.candidate not in candidates:
            continue
        rate = search.next_rate()
        search.candidate.turns = () if rate is None else (Turn("rate", rate),)
        if rate is not None:
            trying.append(search)
    return trying


def _rounds(search: RateSearch, protocol: Protocol) -> int:
    """Return the rounds for the rate that a search tries; more where they confirm, to have frames enough for p99.9."""
    if len(search.tried_per_s) <= _HALVINGS:
        return protocol.rounds
    wanted = ceil(_ENOUGH_FRAMES / (search.tried_per_s[-1] * protocol.block_s))
    return min(max(wanted, protocol.rounds), _LONGEST * protocol.rounds)


def _rounded(rate_per_s: float) -> float:
    return float(f"{rate_per_s:.3g}")
