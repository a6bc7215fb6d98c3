"""What `deploy` found, as immutable, versioned records that turn into JSON and back. Units are in the names."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emca_deploy.errors import InputError
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.latency import LatencyResult, drop_absent

__all__ = ["SCHEMA_VERSION", "DeployCandidate", "DeployReport", "read_deploy_report"]

SCHEMA_VERSION = 2
"""2 has latencies of version 2 (see `latency_results`). 1 is still read."""


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
        warnings: what may be wrong with the images or their labels, a line each.
        checkpoint: where in the checkpoint the network lay, and which weights these are; None for fresh weights.
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
    warnings: tuple[str, ...] = ()
    checkpoint: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        document = asdict(self)
        for candidate in document["candidates"]:
            drop_absent(candidate["latency"])
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
        InputError: it cannot be read, or is of a newer schema version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["schema_version"]
        if version not in range(1, SCHEMA_VERSION + 1):
            raise InputError(f"{path}: schema version {version}", f"this emca-deploy reads 1 to {SCHEMA_VERSION}")
        candidates = tuple(_candidate(c) for c in values["candidates"])
        warnings = tuple(values.get("warnings", ()))
        return DeployReport(**{**values, "candidates": candidates, "warnings": warnings, "schema_version": SCHEMA_VERSION})
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InputError(f"{path}: not a result of ours: {exc}", "name a result.json that `deploy` or `demo` wrote") from exc
