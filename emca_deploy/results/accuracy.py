"""What `validate` found, as immutable, versioned records that turn into JSON and back. Units are in the names."""

from dataclasses import dataclass

from emca_deploy.results.codec import version

__all__ = ["SCHEMA_VERSION", "AccuracyReport", "ClassAccuracy", "Confusion", "Flip", "Flips", "ReferenceComparison"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ClassAccuracy:
    """One class. Percent; None where there is nothing to divide by.

    Attributes:
        label: the class's index.
        name: the data set's name for it.
        samples: images of it.
        recall: share of the images of this class that are predicted as it.
        precision: share of the images predicted as this class that belong to it.
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


@dataclass(frozen=True)
class ReferenceComparison:
    """A candidate held against a reference on the same images.

    Attributes:
        agreement: percent of images with the same top-1 class.
        sqnr_db: signal-to-noise ratio of the logits, 10 log10(sum ref^2 / sum (ref - candidate)^2); None when they are identical.
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


@dataclass(frozen=True)
class AccuracyReport:
    """What `validate --json` prints; percent, None without labels. The fields with a default are not in older files.

    Attributes:
        samples: images.
        mean_confidence: mean of the highest probability.
        ece: expected calibration error, 15 bins of equal width, in percent like the confidences it compares.
        nll: mean negative log-likelihood of the label, nats.
        images_per_s: images per second of the whole run, decoding included; not the model's throughput, which `profile` measures.
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
    schema_version: int = version(SCHEMA_VERSION)
    mean_confidence: float | None = None
    ece: float | None = None
    nll: float | None = None
    images_per_s: float | None = None
    per_class: tuple[ClassAccuracy, ...] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    confused: tuple[Confusion, ...] | None = None
    warnings: tuple[str, ...] = ()
    class_order: str | None = None
