"""Results as immutable, versioned records that turn into JSON and back. Units are in the names."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from emca_deploy.errors import InputError

__all__ = [
    "SCHEMA_VERSION",
    "AccuracyReport",
    "Comparison",
    "DeployCandidate",
    "DeployReport",
    "LatencyResult",
    "LatencySummary",
    "ProfileReport",
    "ReferenceComparison",
    "Scenario",
    "read_deploy_report",
]

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
            _drop_absent(result)
        return document

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ProfileReport":
        """Rebuild from JSON."""
        results = tuple(LatencyResult.from_dict(result) for result in values["results"])
        return cls(results, tuple(Comparison(**c) for c in values["comparisons"]), dict(values["environment"]))


def _drop_absent(latency: dict[str, Any]) -> None:
    if latency["device_ms"] is None:
        del latency["device_ms"]


@dataclass(frozen=True)
class ReferenceComparison:
    """A candidate held against a reference on the same images.

    Attributes:
        agreement: percent of images with the same top-1 class.
        sqnr_db: of the logits, 10 log10(sum ref^2 / sum (ref - candidate)^2); None when they are identical.
        top1_drop: reference minus candidate, points; None without labels.
        top1_drop_ci95: paired 95% interval of the drop.
    """

    artifact: str
    top1: float | None
    top5: float | None
    agreement: float
    sqnr_db: float | None
    top1_drop: float | None
    top1_drop_ci95: tuple[float, float] | None


@dataclass(frozen=True)
class AccuracyReport:
    """What `validate --json` prints; percent, None without labels."""

    artifact: str
    samples: int
    top1: float | None
    top5: float | None
    reference: ReferenceComparison | None
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AccuracyReport":
        """Rebuild from JSON."""
        fields = dict(values)
        if fields["reference"] is not None:
            fields["reference"] = ReferenceComparison(**fields["reference"])
        return cls(**fields)


@dataclass(frozen=True)
class DeployCandidate:
    """One way to deploy the model: a backend at a precision.

    Attributes:
        name: for example "openvino int8".
        file_mib: size of what must be shipped.
        speedup: the baseline's median latency divided by this one's.
        speedup_ci95: its bootstrap interval; None for the baseline itself.
    """

    name: str
    file_mib: float
    latency: LatencyResult
    accuracy: AccuracyReport
    speedup: float
    speedup_ci95: tuple[float, float] | None


@dataclass(frozen=True)
class DeployReport:
    """What `deploy` and `demo` write as result.json.

    Attributes:
        title: what was deployed, for example "emca_eca_resnet18, 10 classes, 64x64".
        baseline: the candidate that speed-ups and accuracy are held against.
        calibration: data set, images, method, seconds.
        parity: of the export against PyTorch.
    """

    title: str
    baseline: str
    candidates: tuple[DeployCandidate, ...]
    calibration: dict[str, Any]
    parity: dict[str, Any]
    environment: dict[str, Any]
    command: str
    created: str
    seconds: float
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        document = asdict(self)
        for candidate in document["candidates"]:
            _drop_absent(candidate["latency"])
        return document


def _candidate(values: Mapping[str, Any]) -> DeployCandidate:
    latency = values["latency"]
    return DeployCandidate(
        **{
            **values,
            "latency": LatencyResult.from_dict(latency),
            "accuracy": AccuracyReport.from_dict(values["accuracy"]),
        }
    )


def read_deploy_report(path: Path) -> DeployReport:
    """Return the report in a result.json.

    Raises:
        InputError: it cannot be read, or is of another schema version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"{path}: schema version {values['schema_version']}", f"this emca-deploy reads {SCHEMA_VERSION}")
        return DeployReport(**{**values, "candidates": tuple(_candidate(c) for c in values["candidates"])})
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InputError(f"{path}: not a result of ours: {exc}", "name a result.json that `deploy` or `demo` wrote") from exc
