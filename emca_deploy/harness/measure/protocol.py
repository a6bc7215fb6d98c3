"""The protocol of a measurement: the options of a caller, and their record in a result."""

from dataclasses import dataclass, fields
from typing import Literal

from emca_deploy.results.latency import ProtocolRecord, Scenario

__all__ = ["BACK_TO_BACK", "BLOCK_S", "CHAIN", "FEWEST_PROCESSES", "REAL", "TOGETHER", "Protocol", "Turn"]

FEWEST_PROCESSES = 2
"""Processes of each compared candidate: the first one of a run is always loaded first, which alone could make it slower."""

BLOCK_S: dict[Scenario, float] = {"single-stream": 0.05, "offline": 0.5, "paced": 1.0}
"""A shared machine is slow for some tenths of a second at a time; short blocks let that affect every candidate alike. With
0.25 s, the ratio of a file to itself is twice as uncertain (benchmarks/LOG.md). Offline blocks are longer, to fill and drain, and
paced ones to have frames enough."""

SEARCH_STAGES = 10
"""Rates that a search tries: 7 to halve the range, and 3 to confirm."""

_BOUNDARIES: dict[Scenario, str] = {
    "single-stream": "host call: input copy and output included, preprocessing excluded",
    "offline": "host, from starting a request to its completion: waiting and input copy included, preprocessing excluded",
    "paced": "host call, or from when a frame comes: input copy and output included, preprocessing excluded",
}
_HEADLINES: dict[Scenario, Literal["p90", "throughput"]] = {"single-stream": "p90", "offline": "throughput", "paced": "p90"}


@dataclass(frozen=True)
class Turn:
    """The way in which the calls of a block are made.

    Attributes:
        kind: "back to back"; "rate": `value` frames a second; "callers": `value` calls at once in one process; "together": back
            to back while the other candidate does the same; "real": back to back on real images; "chain": from
            an image file to the answer.
    """

    kind: Literal["back to back", "rate", "callers", "together", "real", "chain"] = "back to back"
    value: float = 0.0


BACK_TO_BACK, TOGETHER, REAL, CHAIN = Turn(), Turn("together"), Turn("real"), Turn("chain")


@dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
        scenario: "single-stream" makes one call after the other; "offline" keeps as many in flight as the runtime wants;
            "paced" also makes calls at the `rates`.
        batch: Images per call.
        warmup_s: Longest warm-up of a candidate; it ends where successive medians agree within 2 %.
        block_s: Length of one block, within a random quarter; a block has at least one whole call.
        duration_s: Measured time of each candidate; the shortest where `max_duration_s` is longer.
        max_samples: Limit on the calls of each candidate, which shortens its blocks.
        seed: Random seed of the input, the order of the blocks and the bootstrap.
        timeout_s: Longest wait for an answer of a candidate.
        max_duration_s: Longest measured time, until the headline's interval is narrow; None measures for `duration_s`.
        interval_goal: Half-width of the 95 % interval that counts as narrow, as a share of the headline.
        min_queries: Smallest number of calls of each candidate; a fast one makes at least 100.
        processes: Processes of each candidate, which run its blocks in turn; one after the other where memory is too small. The
            pages of memory that a process gets make it some percent faster or slower for its whole life, so a difference of that
            size between single processes means nothing.
        rates: Frames per second, at each of which every round of the scenario "paced" has a block of every candidate.
        deadline_ms: Longest time from when a frame comes to its answer; None without a deadline.
        concurrency: Numbers of calls at once in one process, for each of which every round has a block of every candidate.
        co_run: Whether every round has a block in which both of two candidates run at once.
        real_images: Whether every round has a block of every candidate on the real images of its spec.
        end_to_end: Whether every round has a block of every candidate from an image file to the answer.
        load_together: Whether all candidates load at the same time: for accelerators, where loading takes longer than measuring
            and host memory matters little. Load times are then those of a busy machine.
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
    rates: tuple[float, ...] = ()
    deadline_ms: float | None = None
    concurrency: tuple[int, ...] = ()
    co_run: bool = False
    real_images: bool = False
    end_to_end: bool = False

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The blocks of each candidate in a round; the one with both is not among them."""
        rates, crowds = (Turn("rate", rate) for rate in self.rates), (Turn("callers", callers) for callers in self.concurrency)
        return (BACK_TO_BACK, *rates, *crowds, *((REAL,) if self.real_images else ()), *((CHAIN,) if self.end_to_end else ()))

    @property
    def rounds(self) -> int:
        """The smallest number of blocks of each candidate; fewer where calls are longer than a block and use up the duration."""
        return max(1, round(self.duration_s / self.block_s))

    @property
    def max_rounds(self) -> int:
        """The largest number of blocks of each candidate."""
        longest_s = self.duration_s if self.max_duration_s is None else max(self.max_duration_s, self.duration_s)
        return max(1, round(longest_s / self.block_s))

    @property
    def searches(self) -> bool:
        """Whether the highest rate that meets the deadline is to be found."""
        return self.deadline_ms is not None and not self.rates

    @property
    def stages(self) -> int:
        """The number of times that the rounds run: again for each rate of a search."""
        return 1 + SEARCH_STAGES if self.searches else 1

    def record(self, rounds: int, stop: str) -> ProtocolRecord:
        """Return the record for a result, with the number of blocks of each candidate and the reason for the end."""
        shared = {field.name for field in fields(self)} & {field.name for field in fields(ProtocolRecord)}
        return ProtocolRecord(
            headline=_HEADLINES[self.scenario],
            rounds=rounds,
            stop=stop,
            timing_boundary=_BOUNDARIES[self.scenario],
            **{name: getattr(self, name) for name in shared},
        )
