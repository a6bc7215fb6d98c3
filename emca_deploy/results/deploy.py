"""Results of `deploy`: immutable records that convert to JSON and back. Units are in the names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emca_deploy.errors import InputError
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import left_out, read_json, version
from emca_deploy.results.detection import DetectionReport
from emca_deploy.results.latency import LatencyResult
from emca_deploy.results.sweep_choice import CellChange, GroupChoice

__all__ = ["SCHEMA_VERSION", "DeployCandidate", "DeployReport", "Picture", "read_deploy_report"]

RESULT_NAME = "result.json"
SCHEMA_VERSION = 2
"""Version 2 has the latencies of version 2 of `profile`. Version 1 is still read."""


@dataclass(frozen=True)
class DeployCandidate:
    """One way to deploy the model: a backend at a precision.

    Attributes:
        name: Such as "openvino int8".
        file_mib: Size of the files to ship.
        speedup: Median latency of the baseline divided by that of this candidate.
        speedup_ci95: Bootstrap interval of the speed-up; None for the baseline.
    """

    name: str
    file_mib: float
    latency: LatencyResult
    accuracy: AccuracyReport | DetectionReport
    speedup: float
    speedup_ci95: tuple[float, float] | None

    def contradiction(self) -> str:
        """Return why its values cannot be true, or ""."""
        return f"'{self.name}' has a negative speed-up or size" if min(self.speedup, self.file_mib) < 0 else ""


@dataclass(frozen=True)
class Picture:
    """An image with lost or gained detections, or whose class differs, small enough for a page.

    Attributes:
        index: Position of the image in the data set, from 0.
        file: Name of the image in the data set.
        width: Width of the image in the data set, pixels; boxes are in these pixels.
        height: Height of the image in the data set, pixels.
        jpeg: The image as a JPEG file in base64, which may have fewer pixels.
    """

    index: int
    file: str
    width: int
    height: int
    jpeg: str


@dataclass(frozen=True)
class DeployReport:
    """The result.json of `deploy` and `demo`.

    Attributes:
        title: Name of the model, such as "emca_eca_resnet18, 10 classes, 64x64".
        baseline: Name of the candidate that the others are compared with.
        calibration: Data set, images, method, seconds.
        parity: Difference of the export from PyTorch.
        warnings: Possible faults of the images or their labels, a line each.
        checkpoint: Place of the network in the checkpoint, and the kind of weights; None for fresh weights.
        pictures: Images with lost or gained detections of a detector, or whose class differs for a classifier.
        classes: Names of a classifier's classes by label.
        requirements: Text of each requirement of `report --require`.
        groups: Choice under these for each target and scenario; its keys are names of candidates.
        against: Folder of the deployment that `changes` are relative to.
        changes: Differences of candidates that both deployments have.
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
    pictures: tuple[Picture, ...] = left_out(())
    classes: tuple[str, ...] = left_out(())
    requirements: tuple[str, ...] = left_out(())
    groups: tuple[GroupChoice, ...] = left_out(())
    against: str | None = left_out()
    changes: tuple[CellChange, ...] = left_out(())

    def contradiction(self) -> str:
        """Return why its values cannot be true, or ""."""
        if not self.candidates:
            return "it has no candidates"
        known = self.baseline in (candidate.name for candidate in self.candidates)
        return "" if known else "its baseline is not among its candidates"


def read_deploy_report(place: Path) -> DeployReport:
    """Return the report of a finished deployment. `place` may also be its result.json.

    Raises:
        InputError: the file is missing, unreadable, damaged, or of a newer schema version.
    """
    path = place / RESULT_NAME if place.is_dir() else place
    if not path.exists():
        raise InputError(f"{place}: has no {RESULT_NAME}", "name the folder of a finished `deploy` or `demo`")
    return read_json(DeployReport, path, "a result", "name a result.json that `deploy` or `demo` wrote")
