"""The request to a quantizing process, and its outcome."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from emca_deploy.artifacts import Preprocessing
from emca_deploy.results.codec import from_json

__all__ = ["Job", "Outcome"]


@dataclass(frozen=True)
class Job:
    """One quantization.

    Attributes:
        method: Name in `quantizers.METHODS`.
        arguments: Arguments of that method; JSON values only.
        model: The fp32 ONNX file.
        output: File to write; the method determines its suffix.
        data: Calibration images.
        preprocessing: Preprocessing of the images.
        samples: Number of images; every method gets the same ones.
        threads: Number of cores that the process may use.
        memory_mib: Limit of the process's own memory.
    """

    method: str
    arguments: dict[str, Any]
    model: Path
    output: Path
    data: Path
    preprocessing: Preprocessing
    samples: int
    threads: int
    memory_mib: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Job":
        """Rebuild from JSON values."""
        paths = {name: Path(values[name]) for name in ("model", "output", "data")}
        return cls(**{**values, **paths, "preprocessing": from_json(Preprocessing, values["preprocessing"])})


@dataclass(frozen=True)
class Outcome:
    """Outcome of a quantization.

    Attributes:
        status: "done", "missing" where the library is not installed, or "failed".
        reason: Reason of a failure, in one line.
        samples: Number of images available.
        seconds: Time of the quantization alone, without imports.
        start_rss_mib: Resident memory after the imports.
        peak_rss_mib: Peak of the resident memory.
        versions: Versions of the method's own libraries.
    """

    status: Literal["done", "missing", "failed"]
    reason: str = ""
    samples: int = 0
    seconds: float = 0.0
    start_rss_mib: float = 0.0
    peak_rss_mib: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
