"""What `validate` found, as immutable, versioned records that turn into JSON and back. Units are in the names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["SCHEMA_VERSION", "AccuracyReport", "ReferenceComparison"]

SCHEMA_VERSION = 1


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
