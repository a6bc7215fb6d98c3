"""What `profile` found, as immutable, versioned records that turn into JSON and back. Units are in the names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["SCHEMA_VERSION", "Comparison", "LatencyResult", "LatencySummary", "ProfileReport", "Scenario", "drop_absent"]

SCHEMA_VERSION = 1
Scenario = Literal["single-stream", "offline"]


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
class LatencyResult:
    """One candidate's latency.

    Attributes:
        samples: measured calls, warm-up excluded.
        samples_ms: those calls, in the order they were made.
        device_ms: of the same calls by the accelerator's own clock, copies excluded; not in the JSON where there is none.
        stable: false where a warning casts doubt on the numbers.
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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LatencyResult":
        """Rebuild from JSON."""
        summaries = {name: LatencySummary(**values[name]) for name in ("latency_ms", "device_ms") if values.get(name)}
        return cls(**{**values, **summaries})


@dataclass(frozen=True)
class Comparison:
    """The ratio of b's median to a's: how many times faster a is than b, with a bootstrap interval."""

    a: str
    b: str
    ratio_p50: float
    ratio_ci95: tuple[float, float]


@dataclass(frozen=True)
class ProfileReport:
    """What `profile --json` prints."""

    results: tuple[LatencyResult, ...]
    comparisons: tuple[Comparison, ...]
    environment: dict[str, Any]
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        document = asdict(self)
        for result in document["results"]:
            drop_absent(result)
        return document

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ProfileReport":
        """Rebuild from JSON."""
        results = tuple(LatencyResult.from_dict(result) for result in values["results"])
        return cls(results, tuple(Comparison(**c) for c in values["comparisons"]), dict(values["environment"]))


def drop_absent(latency: dict[str, Any]) -> None:
    """Remove from a result's document, in place, what is absent rather than null."""
    if latency["device_ms"] is None:
        del latency["device_ms"]
