"""What `deploy` found, as immutable, versioned records that turn into JSON and back. Units are in the names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emca_deploy.errors import InputError
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import read_json, version
from emca_deploy.results.latency import LatencyResult

__all__ = ["SCHEMA_VERSION", "DeployCandidate", "DeployReport", "read_deploy_report"]

RESULT_NAME = "result.json"
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

    def contradiction(self) -> str:
        """Return what of it cannot be, or ""."""
        return f"'{self.name}' has a negative speed-up or size" if min(self.speedup, self.file_mib) < 0 else ""


@dataclass(frozen=True)
class DeployReport:
    """What `deploy` and `demo` write as result.json.

    Attributes:
        title: what was deployed, for example "emca_eca_resnet18, 10 classes, 64x64".
        baseline: the candidate that speed-ups and accuracy are held against.
        calibration: data set, images, method, seconds.
        parity: parity of the export against PyTorch.
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
    schema_version: int = version(SCHEMA_VERSION, {1: lambda values: values})
    warnings: tuple[str, ...] = ()
    checkpoint: dict[str, Any] | None = None

    def contradiction(self) -> str:
        """Return what of it cannot be, or ""."""
        if not self.candidates:
            return "it has no candidates"
        known = self.baseline in (candidate.name for candidate in self.candidates)
        return "" if known else "its baseline is not among its candidates"


def read_deploy_report(place: Path) -> DeployReport:
    """Return the report of a finished deployment. `place` may also be its result.json.

    Raises:
        InputError: there is none, or it cannot be read, is damaged, or is of a newer schema version.
    """
    path = place / RESULT_NAME if place.is_dir() else place
    if not path.exists():
        raise InputError(f"{place}: has no {RESULT_NAME}", "name the folder of a finished `deploy` or `demo`")
    return read_json(DeployReport, path, "a result", "name a result.json that `deploy` or `demo` wrote")
