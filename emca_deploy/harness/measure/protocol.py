"""How latency is measured: what a caller may choose, and what a result says of it."""

from dataclasses import dataclass
from typing import Literal

from emca_deploy.results.latency import ProtocolRecord, Scenario

__all__ = ["BLOCK_S", "FEWEST_PROCESSES", "Protocol"]

FEWEST_PROCESSES = 2
"""Of each candidate that is held against another: the first of a run is always loaded first, which alone could make it slower."""

BLOCK_S: dict[Scenario, float] = {"single-stream": 0.05, "offline": 0.5}
"""Short where calls are: a shared machine is slow for some tenths of a second at a time, which is to hit every candidate alike.
With blocks of 0.25 s the ratio of one file to itself was twice as uncertain (benchmarks/LOG.md). Offline, filling and draining
would count for too much."""

_BOUNDARIES: dict[Scenario, str] = {
    "single-stream": "host call: input copy and output included, preprocessing excluded",
    "offline": "host, from starting a request to its completion: waiting and input copy included, preprocessing excluded",
}
_HEADLINES: dict[Scenario, Literal["p90", "throughput"]] = {"single-stream": "p90", "offline": "throughput"}


@dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
        scenario: "single-stream" is one call after the other; "offline" keeps as many in flight as the runtime wants.
        batch: images a call.
        warmup_s: the most that a candidate is warmed up; less where successive medians agree within 2 % sooner.
        block_s: seconds of one block, give or take a random quarter; a call is never cut: a slow candidate's block is one call.
        duration_s: measured time of each candidate, the least where there is a `max_duration_s`.
        max_samples: calls kept of each candidate; its blocks are cut short to stay below.
        seed: random seed of the input, the order of the blocks and the bootstrap.
        timeout_s: how long any one answer of a candidate may take.
        max_duration_s: measure on until the headline's interval is narrow, at most this long; None, or no more than
            `duration_s`, measures for that.
        interval_goal: narrow: the 95 % interval ends within this share of the headline to both sides.
        min_queries: the fewest calls of each candidate, of which a fast one makes 100 at least.
        processes: processes of each candidate, whose blocks take turns; one after the other where memory is too small for all.
            Which pages of memory a process happens to get makes it some percent faster or slower for as long as it lives: two
            processes of one candidate differ, and one of each says nothing of a difference of that size.
        load_together: load all candidates side by side: for accelerators, where loading takes longer than measuring and the order
            in which host memory is given out means little. Load times are then those of a busy machine.
    """

    scenario: Scenario = "single-stream"
    batch: int = 1
    warmup_s: float = 2.0
    block_s: float = BLOCK_S["single-stream"]
    duration_s: float = 5.0
    max_samples: int = 20_000
    seed: int = 0
    timeout_s: float = 300.0
    max_duration_s: float | None = None
    interval_goal: float = 0.01
    min_queries: int = 64
    processes: int = 1
    load_together: bool = False

    @property
    def rounds(self) -> int:
        """How many blocks each candidate gets at least."""
        return max(1, round(self.duration_s / self.block_s))

    @property
    def max_rounds(self) -> int:
        """How many blocks each candidate gets at most."""
        longest_s = self.duration_s if self.max_duration_s is None else max(self.max_duration_s, self.duration_s)
        return max(1, round(longest_s / self.block_s))

    def record(self, rounds: int, stop: str) -> ProtocolRecord:
        """Return what a result says of how it was measured, of the blocks that each candidate got, and why no more."""
        return ProtocolRecord(
            scenario=self.scenario,
            headline=_HEADLINES[self.scenario],
            batch=self.batch,
            seed=self.seed,
            rounds=rounds,
            block_s=self.block_s,
            duration_s=self.duration_s,
            max_duration_s=self.max_duration_s,
            interval_goal=self.interval_goal,
            min_queries=self.min_queries,
            processes=self.processes,
            stop=stop,
            timing_boundary=_BOUNDARIES[self.scenario],
        )
