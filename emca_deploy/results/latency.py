"""What `profile` found, as immutable, versioned records that turn into JSON and back. Units are in the names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = [
    "SCHEMA_VERSION",
    "Comparison",
    "Failure",
    "LatencyResult",
    "LatencySummary",
    "ProfileReport",
    "ProtocolRecord",
    "Scenario",
    "Verdict",
    "WarmUp",
    "drop_absent",
    "verdict_of",
]

SCHEMA_VERSION = 2
"""2 declares the protocol, says verdicts, lists failures, and keeps the blocks. 1 is still read."""

Scenario = Literal["single-stream", "offline"]
Verdict = Literal["faster", "slower", "no difference shown"]

_NULL_IS_ABSENT = ("device_ms", "protocol", "throughput_ci95")
_EMPTY_IS_ABSENT = ("telemetry", "builds", "block_calls", "block_builds", "block_wall_ms")


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
        seed: of the input, the order of the blocks and the bootstrap.
        rounds: blocks of each candidate.
        block_s: of one block.
        duration_s: the least that each candidate was measured, as asked.
        max_duration_s: the most; None where the duration was fixed.
        interval_goal: half the width of the headline's 95 % interval that ends a run, as a share of it.
        min_queries: the fewest calls of each candidate.
        processes: of each candidate, as asked; together, or one after the other where they do not fit into memory.
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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ProtocolRecord":
        """Rebuild from JSON."""
        warm_up = values.get("warm_up")
        return cls(**{**values, "warm_up": None if warm_up is None else WarmUp(**warm_up)})


@dataclass(frozen=True)
class LatencyResult:
    """One candidate's latency. What is null, or empty among the last ones, is left out of the JSON.

    Attributes:
        samples: measured calls, warm-up excluded.
        samples_ms: those calls, in the order they were made; empty where they are only in the raw samples' file.
        device_ms: of the same calls by the accelerator's own clock, copies excluded; not in the JSON where there is none.
        stable: false where a warning casts doubt on the numbers.
        protocol: how it was measured; None in a file of version 1.
        throughput_ci95: 95 % interval of the images per second; only offline.
        telemetry: what was sampled beside the run, by source; empty where nothing was.
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
    device_ms: LatencySummary | None = None
    protocol: ProtocolRecord | None = None
    throughput_ci95: tuple[float, float] | None = None
    telemetry: dict[str, Any] = field(default_factory=dict)
    builds: tuple[str, ...] = ()
    block_calls: tuple[int, ...] = ()
    block_builds: tuple[int, ...] = ()
    block_wall_ms: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LatencyResult":
        """Rebuild from JSON of this version, or of version 1, which has less and nothing else."""
        records: dict[str, Any] = {
            name: LatencySummary(**values[name]) for name in ("latency_ms", "device_ms") if values.get(name)
        }
        if values.get("protocol"):
            records["protocol"] = ProtocolRecord.from_dict(values["protocol"])
        return cls(**{**values, **records})


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
    verdict: Verdict = "no difference shown"


@dataclass(frozen=True)
class Failure:
    """A candidate that could not be measured, while others could.

    Attributes:
        name: the candidate's.
        error: what went wrong.
        remedy: what to do about it.
        exit_code: of the command, for this error.
    """

    name: str
    error: str
    remedy: str = ""
    exit_code: int = 1


@dataclass(frozen=True)
class ProfileReport:
    """What `profile --json` prints.

    Attributes:
        complete: false where the run was interrupted or a candidate failed; what is there was measured.
        protocol: of all candidates; None in a file of version 1.
        failures: of candidates; those are not in `results`.
        raw_samples: the file with all raw samples, as named by the user; None where there is none.
    """

    results: tuple[LatencyResult, ...]
    comparisons: tuple[Comparison, ...]
    environment: dict[str, Any]
    schema_version: int = SCHEMA_VERSION
    complete: bool = True
    protocol: ProtocolRecord | None = None
    failures: tuple[Failure, ...] = ()
    raw_samples: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        document = asdict(self)
        for result in document["results"]:
            drop_absent(result)
        if self.raw_samples is None:
            del document["raw_samples"]
        return document

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ProfileReport":
        """Rebuild from JSON of this version or an older one.

        Raises:
            ValueError: it is of a newer version.
            KeyError, TypeError: it is no such document.
        """
        version = values["schema_version"]
        if version not in range(1, SCHEMA_VERSION + 1):
            raise ValueError(f"schema version {version}; this emca-deploy reads 1 to {SCHEMA_VERSION}")
        comparisons = (_upgrade_comparison(c) if version == 1 else c for c in values["comparisons"])
        protocol = values.get("protocol")
        return cls(
            results=tuple(LatencyResult.from_dict(result) for result in values["results"]),
            comparisons=tuple(Comparison(**comparison) for comparison in comparisons),
            environment=dict(values["environment"]),
            complete=bool(values.get("complete", True)),
            protocol=None if protocol is None else ProtocolRecord.from_dict(protocol),
            failures=tuple(Failure(**failure) for failure in values.get("failures", ())),
            raw_samples=values.get("raw_samples"),
        )


def verdict_of(ratio_ci95: tuple[float, float]) -> Verdict:
    """Return what an interval of a ratio, of b's time to a's, shows about a."""
    low, high = ratio_ci95
    if low > 1:
        return "faster"
    return "slower" if high < 1 else "no difference shown"


def drop_absent(latency: dict[str, Any]) -> None:
    """Remove from a result's document, in place, what is absent rather than null or empty."""
    for name in _NULL_IS_ABSENT:
        if latency[name] is None:
            del latency[name]
    for name in _EMPTY_IS_ABSENT:
        if not latency[name]:
            del latency[name]


def _upgrade_comparison(values: Mapping[str, Any]) -> dict[str, Any]:
    low, high = values["ratio_ci95"]
    return {**values, "verdict": verdict_of((low, high))}
