"""What `profile` found, as immutable, versioned records that turn into JSON and back. Units are in the names."""

from dataclasses import dataclass, field
from typing import Any, Literal

from emca_deploy.results.codec import left_out, version
from emca_deploy.results.telemetry import TelemetryResult

__all__ = [
    "SCHEMA_VERSION",
    "Comparison",
    "Failure",
    "LatencyResult",
    "LatencySummary",
    "ProfileReport",
    "ProtocolRecord",
    "Scenario",
    "SpeedVerdict",
    "WarmUp",
    "verdict_of",
]

SCHEMA_VERSION = 2
"""2 declares the protocol, gives verdicts, lists failures, and keeps the blocks. 1 is still read."""

Scenario = Literal["single-stream", "offline"]
SpeedVerdict = Literal["faster", "slower", "no difference shown"]


@dataclass(frozen=True)
class LatencySummary:
    """Milliseconds per call (a call is one batch). Percentiles are order statistics, never interpolated beyond the data."""

    min: float
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p99_9: float
    max: float
    std: float
    p50_ci95: tuple[float, float]


@dataclass(frozen=True)
class WarmUp:
    """What a candidate needed before it was steady; of several builds, the longest.

    Attributes:
        settled: whether the medians of successive windows agreed within the time allowed.
        seconds: how long it took.
        calls: made meanwhile, the first one not among them.
        windows: how many there were; their medians are in the raw samples.
    """

    settled: bool
    seconds: float
    calls: int
    windows: int


@dataclass(frozen=True)
class ProtocolRecord:
    """How it was measured. Results of different protocols are not compared.

    Attributes:
        headline: what to quote: "p90" of single-stream, "throughput" of offline.
        batch: images a call.
        seed: random seed of the input, the order of the blocks and the bootstrap.
        rounds: blocks of each candidate.
        block_s: seconds of one block.
        duration_s: the least that each candidate was measured, as asked.
        max_duration_s: the most; None where the duration was fixed.
        interval_goal: half the width of the headline's 95 % interval that ends a run, as a share of it.
        min_queries: the fewest calls of each candidate.
        processes: processes of each candidate, as asked; together, or one after the other where they do not fit into memory.
        stop: "interval within 1 %", "time limit", "fixed duration" or "interrupted".
        timing_boundary: what lies between the two readings of the clock.
        warm_up: the candidate's; None in the report's own protocol, which is that of all candidates.
        in_flight: requests at once; the most of all candidates in the report's own protocol.
    """

    scenario: Scenario
    headline: Literal["p90", "throughput"]
    batch: int
    seed: int
    rounds: int
    block_s: float
    duration_s: float
    max_duration_s: float | None
    interval_goal: float
    min_queries: int
    stop: str
    timing_boundary: str
    warm_up: WarmUp | None = None
    in_flight: int = 1
    processes: int = 1


@dataclass(frozen=True)
class LatencyResult:
    """One candidate's latency. What is null, or empty among the last ones, is left out of the JSON.

    Attributes:
        samples: measured calls, warm-up excluded.
        samples_ms: those calls, in the order they were made; empty where they are only in the raw samples' file.
        device_ms: milliseconds of the same calls by the accelerator's own clock, copies excluded; None where it has none.
        stable: false where a warning casts doubt on the numbers.
        protocol: how it was measured; None in a file of version 1.
        throughput_ci95: 95 % interval of the images per second; only offline.
        telemetry: what was sampled during the run; empty, and not in the JSON, where nothing was.
        builds: the artifact of each process, of a candidate that was built several times; empty for a single one.
        block_calls: how many of `samples_ms` each block has, in order.
        block_builds: the process that each block ran in, from 0; empty where all ran in one.
        block_wall_ms: how long each block took; only offline, where calls overlap.
    """

    artifact: str
    backend: str
    precision: str
    target: str
    scenario: Scenario
    batch: int
    latency_ms: LatencySummary
    throughput_images_per_s: float
    samples: int
    load_ms: float
    first_inference_ms: float
    peak_rss_mib: float
    stable: bool
    warnings: tuple[str, ...] = ()
    samples_ms: tuple[float, ...] = ()
    runtime: dict[str, Any] = field(default_factory=dict)
    device_ms: LatencySummary | None = left_out()
    protocol: ProtocolRecord | None = left_out()
    throughput_ci95: tuple[float, float] | None = left_out()
    telemetry: TelemetryResult = left_out(TelemetryResult)
    builds: tuple[str, ...] = left_out(())
    block_calls: tuple[int, ...] = left_out(())
    block_builds: tuple[int, ...] = left_out(())
    block_wall_ms: tuple[float, ...] = left_out(())

    def contradiction(self) -> str:
        """Return what of it cannot be, or ""."""
        blocks, summary = len(self.block_calls), self.latency_ms
        counts = (*self.block_calls, *self.block_builds, *self.block_wall_ms, *self.samples_ms)
        if min((*counts, summary.min, summary.p50, 0)) < 0 or self.batch < 1:
            return f"'{self.artifact}' has negative counts or times"
        if any(len(listed) != blocks for listed in (self.block_builds, self.block_wall_ms) if listed):
            return f"'{self.artifact}' has {blocks} blocks, and others by their builds or times"
        return ""


@dataclass(frozen=True)
class Comparison:
    """The ratio of b's median to a's: how many times faster a is than b, with a bootstrap interval.

    Offline it is the ratio of the medians of the blocks' time per image, and so of the throughputs.

    Attributes:
        verdict: "no difference shown" where the interval holds 1.
    """

    a: str
    b: str
    ratio_p50: float
    ratio_ci95: tuple[float, float]
    verdict: SpeedVerdict = "no difference shown"


@dataclass(frozen=True)
class Failure:
    """A candidate that could not be measured, while others could.

    Attributes:
        name: the candidate's.
        error: what went wrong.
        remedy: what to do about it.
        exit_code: exit code of the command, for this error.
    """

    name: str
    error: str
    remedy: str = ""
    exit_code: int = 1


def verdict_of(ratio_ci95: tuple[float, float]) -> SpeedVerdict:
    """Return what an interval of a ratio, of b's time to a's, shows about a."""
    low, high = ratio_ci95
    if low > 1:
        return "faster"
    return "slower" if high < 1 else "no difference shown"


def _from_version_1(values: dict[str, Any]) -> dict[str, Any]:
    comparisons = [{**each, "verdict": verdict_of(tuple(each["ratio_ci95"]))} for each in values["comparisons"]]
    return {**values, "comparisons": comparisons}


@dataclass(frozen=True)
class ProfileReport:
    """What `profile --json` prints.

    Attributes:
        complete: false where the run was interrupted or a candidate failed; what is there was measured.
        protocol: protocol of all candidates; None in a file of version 1.
        failures: failures of candidates; those are not in `results`.
        raw_samples: the file with all raw samples, as named by the user; None where there is none.
    """

    results: tuple[LatencyResult, ...]
    comparisons: tuple[Comparison, ...]
    environment: dict[str, Any]
    schema_version: int = version(SCHEMA_VERSION, {1: _from_version_1})
    complete: bool = True
    protocol: ProtocolRecord | None = None
    failures: tuple[Failure, ...] = ()
    raw_samples: str | None = left_out()
