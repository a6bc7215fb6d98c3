"""What `validate` found, as immutable, versioned records that turn into JSON and back. Units are in the names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from emca_deploy.results.codec import fitting

__all__ = ["SCHEMA_VERSION", "AccuracyReport", "ClassAccuracy", "Confusion", "Flip", "Flips", "ReferenceComparison"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ClassAccuracy:
    """One class. Percent; None where there is nothing to divide by.

    Attributes:
        label: the class's index.
        name: the data set's name for it.
        samples: images of it.
        recall: of the images of this class, those that are told so.
        precision: of the images told to be of this class, those that are.
        reference_recall: the reference's recall; None without a reference.
    """

    label: int
    name: str
    samples: int
    recall: float | None
    precision: float | None
    reference_recall: float | None = None


@dataclass(frozen=True)
class Confusion:
    """How many images of one class were taken for another."""

    label: int
    predicted: int
    samples: int


@dataclass(frozen=True)
class Flip:
    """An image that the candidate puts into another class than the reference does.

    Attributes:
        index: the image's number in the data set, from 0.
        file: its name in the data set; "" where it has none.
        label: its class; None without labels.
        reference: the class the reference says.
        candidate: the class the candidate says.
    """

    index: int
    file: str
    label: int | None
    reference: int
    candidate: int


@dataclass(frozen=True)
class Flips:
    """All such images.

    Attributes:
        total: how many.
        lost: those that the reference gets right; None without labels.
        won: those that the candidate gets right; None without labels. The rest, both get wrong.
        images: the first of them, in the order of the data set; empty where they were not asked for.
    """

    total: int
    lost: int | None
    won: int | None
    images: tuple[Flip, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Flips":
        """Rebuild from JSON."""
        return cls(**{**values, "images": tuple(Flip(**image) for image in values["images"])})


@dataclass(frozen=True)
class ReferenceComparison:
    """A candidate held against a reference on the same images.

    Attributes:
        agreement: percent of images with the same top-1 class.
        sqnr_db: of the logits, 10 log10(sum ref^2 / sum (ref - candidate)^2); None when they are identical.
        top1_drop: reference minus candidate, points; None without labels.
        top1_drop_ci95: paired 95% interval of the drop.
        mcnemar_p: two-sided p-value of McNemar's exact test; None without labels.
        mean_confidence, ece, nll: the reference's, as in `AccuracyReport`.
        flips: images whose class differs.
        typical_sqnr_db: mean over images of each one's SQNR, so that no few images decide it; identical ones count 150.
    """

    artifact: str
    top1: float | None
    top5: float | None
    agreement: float
    sqnr_db: float | None
    top1_drop: float | None
    top1_drop_ci95: tuple[float, float] | None
    mcnemar_p: float | None = None
    mean_confidence: float | None = None
    ece: float | None = None
    nll: float | None = None
    flips: Flips | None = None
    typical_sqnr_db: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ReferenceComparison":
        """Rebuild from JSON; what an older version did not write is None."""
        values = dict(values)
        flips, limits = values.get("flips"), values["top1_drop_ci95"]
        rebuilt = {
            "flips": None if flips is None else Flips.from_dict(flips),
            "top1_drop_ci95": None if limits is None else tuple(limits),
        }
        return cls(**{**values, **rebuilt})


@dataclass(frozen=True)
class AccuracyReport:
    """What `validate --json` prints; percent, None without labels. The fields with a default are not in older files.

    Attributes:
        samples: images.
        mean_confidence: of the highest probability.
        ece: expected calibration error, 15 bins of equal width, in percent like the confidences it compares.
        nll: mean negative log-likelihood of the label, nats.
        images_per_s: of the whole run, decoding included; not the model's throughput, which `profile` measures.
        per_class: every class that occurs, in order; None where it was not asked for (`deploy` does not).
        confusion: images by label (row) and predicted class (column); None for more classes than fit a page.
        confused: the classes most often taken for another, the worst first.
        warnings: what may be wrong with the labels or the images, a line each.
        class_order: how class folders whose names are numbers were sorted where no option set it: "number" or "string".
    """

    artifact: str
    samples: int
    top1: float | None
    top5: float | None
    reference: ReferenceComparison | None
    schema_version: int = SCHEMA_VERSION
    mean_confidence: float | None = None
    ece: float | None = None
    nll: float | None = None
    images_per_s: float | None = None
    per_class: tuple[ClassAccuracy, ...] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    confused: tuple[Confusion, ...] | None = None
    warnings: tuple[str, ...] = ()
    class_order: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AccuracyReport":
        """Rebuild from JSON.

        Raises:
            ValueError: it is of another version.
            KeyError, TypeError: it is no such document.
        """
        if values["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {values['schema_version']}; this emca-deploy reads {SCHEMA_VERSION}")
        fields = dict(values)
        if fields["reference"] is not None:
            fields["reference"] = ReferenceComparison.from_dict(fields["reference"])
        for name, kind in (("per_class", ClassAccuracy), ("confused", Confusion)):
            if fields.get(name) is not None:
                fields[name] = tuple(kind(**item) for item in fields[name])
        if fields.get("confusion") is not None:
            fields["confusion"] = tuple(tuple(row) for row in fields["confusion"])
        fields["warnings"] = tuple(fields.get("warnings", ()))
        return fitting(cls(**fields))
