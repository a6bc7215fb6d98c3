"""What a quantizing process is asked, and what it answers."""

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
        method: a name of `quantizers.METHODS`.
        arguments: of that method; JSON values only.
        model: the fp32 ONNX file.
        output: what to write; its suffix is the method's own.
        data: calibration images.
        preprocessing: how they become the model's input.
        samples: how many of them; every method gets the same.
        threads: cores that the process may use.
        memory_mib: how much memory of its own it may take.
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
        """Return it as JSON values."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Job":
        """Rebuild from JSON values."""
        paths = {name: Path(values[name]) for name in ("model", "output", "data")}
        return cls(**{**values, **paths, "preprocessing": from_json(Preprocessing, values["preprocessing"])})


@dataclass(frozen=True)
class Outcome:
    """How it went.

    Attributes:
        status: "missing" where the library is not installed.
        reason: why not, in one line.
        samples: images that were there to use.
        seconds: of the quantization alone, imports excluded.
        start_rss_mib: resident memory after the imports.
        peak_rss_mib: the most that was resident.
        versions: of the method's own libraries.
    """

    status: Literal["done", "missing", "failed"]
    reason: str = ""
    samples: int = 0
    seconds: float = 0.0
    start_rss_mib: float = 0.0
    peak_rss_mib: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
