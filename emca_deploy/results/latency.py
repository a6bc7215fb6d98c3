"""Results of `profile`: immutable records that convert to JSON and back. Units are in the names."""

from dataclasses import dataclass, field
from typing import Any, Literal

from emca_deploy.results.codec import left_out, version
from emca_deploy.results.load import CoRun, CrowdLatency, EndToEnd, HighestRate, LatencySummary, Outlier, PacedLatency, RealImages
from emca_deploy.results.telemetry import TelemetryResult

__all__ = [
    "SCHEMA_VERSION",
    "CompareReport",
    "Comparison",
    "Failure",
    "LatencyResult",
    "ProfileReport",
    "ProtocolRecord",
    "Scenario",
    "SpeedVerdict",
    "WarmUp",
    "verdict_of",
]

SCHEMA_VERSION = 2
"""Version 2 has the protocol, verdicts, failures and blocks. Version 1 is still read."""

COMPARE_VERSION = 1

Scenario = Literal["single-stream", "offline", "paced"]
SpeedVerdict = Literal["faster", "slower", "no difference shown"]


@dataclass(frozen=True)
class WarmUp:
    """A candidate's warm-up; the longest one where it has several processes.

    Attributes:
        settled: Whether the medians of successive windows agreed within the time limit, in every process.
        calls: Number of calls, without the first.
        windows: Number of windows; their medians are in the raw samples.
    """

    settled: bool
    seconds: float
    calls: int
    windows: int


@dataclass(frozen=True)
class ProtocolRecord:
    """How a result was measured. Results of different protocols are not compared.

    Attributes:
        headline: Value to quote: "throughput" of offline, "p90" of the others.
        batch: Images per call.
        seed: Random seed of the input, the order of the blocks and the bootstrap.
        rounds: Blocks of each candidate.
        block_s: Length of one block.
        duration_s: Shortest measured time of each candidate, as requested.
        max_duration_s: Longest measured time; None where the duration was fixed.
        interval_goal: Half-width of the headline's 95 % interval, as a share of it, that ends a run.
        min_queries: Smallest number of calls of each candidate.
        processes: Processes of each candidate, as requested; they run one after the other where memory is too small for all.
        stop: Reason for the end: "interval within 1 %", "time limit", "fixed duration" or "interrupted".
        timing_boundary: Work between the two readings of the clock.
        warm_up: Warm-up of the candidate; None in the report's protocol, which holds for all candidates.
        in_flight: Concurrent requests; the maximum of all candidates in the report's protocol.
        rates: Frames per second of the paced scenario, as requested.
        deadline_ms: Longest time from when a frame comes to its answer, as requested.
        concurrency: Numbers of calls at once, as requested.
        co_run: Whether the two candidates also ran at once.
        real_images: Whether the candidates also ran on real images.
        end_to_end: Whether the candidates also ran from image files to answers.
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
    rates: tuple[float, ...] = left_out(())
    deadline_ms: float | None = left_out()
    concurrency: tuple[int, ...] = left_out(())
    co_run: bool = left_out(False)
    real_images: bool = left_out(False)
    end_to_end: bool = left_out(False)


@dataclass(frozen=True)
class LatencyResult:
    """One candidate's latency. Fields from `device_ms` on are left out of the JSON where they are null or empty.

    In the paced scenario, the values are those of calls made back to back, except `paced` and `highest_rate`.

    Attributes:
        samples: Number of measured calls, without the warm-up.
        stable: False where a warning casts doubt on the numbers.
        samples_ms: Latency of each call, in order; empty where only the file of raw samples has them.
        device_ms: Latency by the accelerator's own clock, without copies; None where it has none.
        protocol: Protocol of the measurement; None in a file of version 1.
        throughput_ci95: 95 % interval of the images per second; offline only.
        builds: Artifact of each process, where a candidate was built several times.
        block_calls: Number of calls in each block, in order.
        block_builds: Index of the process that ran each block; empty where one process ran all.
        block_wall_ms: Time that each block took; offline only, where calls overlap.
        paced: Latency at each rate, in ascending order; paced only.
        highest_rate: Highest rate that meets the deadline; only where a deadline and no rate was given.
        concurrency: Latency at each number of calls at once, in ascending order.
        knee: Smallest number of calls at once with 95 % of the highest throughput.
        co_run: Latency while the other candidate runs too.
        outliers: The slowest calls that were made back to back, the slowest first.
        real_images: Latency on real images.
        end_to_end: Time from an image file to the answer.
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
    paced: tuple[PacedLatency, ...] = left_out(())
    highest_rate: HighestRate | None = left_out()
    concurrency: tuple[CrowdLatency, ...] = left_out(())
    knee: int | None = left_out()
    co_run: CoRun | None = left_out()
    outliers: tuple[Outlier, ...] = left_out(())
    real_images: RealImages | None = left_out()
    end_to_end: EndToEnd | None = left_out()

    def contradiction(self) -> str:
        """Return why its values cannot be true, or ""."""
        blocks, summary = len(self.block_calls), self.latency_ms
        counts = (*self.block_calls, *self.block_builds, *self.block_wall_ms, *self.samples_ms)
        if min((*counts, summary.min, summary.p50, 0)) < 0 or self.batch < 1:
            return f"'{self.artifact}' has negative counts or times"
        if any(len(listed) != blocks for listed in (self.block_builds, self.block_wall_ms) if listed):
            return f"'{self.artifact}' has {blocks} blocks, but another number of their builds or times"
        return ""


@dataclass(frozen=True)
class Comparison:
    """How many times faster a is than b: the ratio of b's median latency to a's, with a bootstrap interval.

    Offline, the medians are those of the blocks' time per image. The verdict is "no difference shown" where the interval
    contains 1.
    """

    a: str
    b: str
    ratio_p50: float
    ratio_ci95: tuple[float, float]
    verdict: SpeedVerdict = "no difference shown"


@dataclass(frozen=True)
class CompareReport:
    """The output of `compare --json`.

    Attributes:
        differences: Reasons why the two runs must not be compared; empty without --force.
    """

    differences: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    schema_version: int = version(COMPARE_VERSION)


@dataclass(frozen=True)
class Failure:
    """A candidate that could not be measured, and the exit code of its error."""

    name: str
    error: str
    remedy: str = ""
    exit_code: int = 1


def verdict_of(ratio_ci95: tuple[float, float]) -> SpeedVerdict:
    """Return what the interval of the ratio of b's time to a's shows about a."""
    low, high = ratio_ci95
    if low > 1:
        return "faster"
    return "slower" if high < 1 else "no difference shown"


def _from_version_1(values: dict[str, Any]) -> dict[str, Any]:
    comparisons = [{**each, "verdict": verdict_of(tuple(each["ratio_ci95"]))} for each in values["comparisons"]]
    return {**values, "comparisons": comparisons}


@dataclass(frozen=True)
class ProfileReport:
    """The output of `profile --json`.

    Attributes:
        complete: False where the run was interrupted or a candidate failed.
        protocol: Protocol of all candidates; None in a file of version 1.
        failures: Candidates that are not in `results` because they failed.
        raw_samples: File with all raw samples, as the user named it; None where there is none.
    """

    results: tuple[LatencyResult, ...]
    comparisons: tuple[Comparison, ...]
    environment: dict[str, Any]
    schema_version: int = version(SCHEMA_VERSION, {1: _from_version_1})
    complete: bool = True
    protocol: ProtocolRecord | None = None
    failures: tuple[Failure, ...] = ()
    raw_samples: str | None = left_out()
