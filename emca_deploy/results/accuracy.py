"""Results of `validate`: immutable records that convert to JSON and back. Units are in the names."""

from dataclasses import dataclass

from emca_deploy.results.codec import left_out, version
from emca_deploy.results.corruptions import CorruptionReport
from emca_deploy.results.ledger import DropLedger

__all__ = [
    "SCHEMA_VERSION", "AccuracyReport", "ClassAccuracy", "ConfidenceBin", "Confusion", "Flip", "Flips", "ReferenceComparison",
    "TemperatureFit",
]  # fmt: skip

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy of one class, in percent; None where there is nothing to divide by.

    Attributes:
        samples: Number of images of the class.
        recall: Share of the images of this class that are predicted as it.
        precision: Share of the images predicted as this class that belong to it.
        reference_recall: Recall of the reference; None without a reference.
    """

    label: int
    name: str
    samples: int
    recall: float | None
    precision: float | None
    reference_recall: float | None = None


@dataclass(frozen=True)
class ConfidenceBin:
    """Images whose highest probability is in one of the bins of the ECE.

    Attributes:
        images: Number of images.
        confidence: Mean of their highest probabilities, percent.
        accuracy: Share of them that are predicted right, percent.
    """

    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Confusion:
    """The number of images of one class that were predicted as another."""

    label: int
    predicted: int
    samples: int


@dataclass(frozen=True)
class Flip:
    """An image for which candidate and reference predict different classes.

    Attributes:
        index: Position of the image in the data set, from 0.
        file: Name of the image in the data set; "" where it has none.
        label: True class; None without labels.
        reference, candidate: Predicted classes.
    """

    index: int
    file: str
    label: int | None
    reference: int
    candidate: int


@dataclass(frozen=True)
class Flips:
    """Counts of flips, and the first of them.

    Attributes:
        total: Number of flips.
        lost: Flips where the reference is right; None without labels.
        won: Flips where the candidate is right; None without labels. In the other flips both are wrong.
        images: First flips in the order of the data set; empty where they were not requested.
    """

    total: int
    lost: int | None
    won: int | None
    images: tuple[Flip, ...] = ()

    def worst(self, most: int) -> tuple[Flip, ...]:
        """Return at most `most` of the listed flips: first those where only the reference is right, last where only the other."""

        def order(flip: Flip) -> int:
            return -1 if flip.label == flip.reference else flip.label == flip.candidate

        return tuple(sorted(self.images, key=order)[:most])


@dataclass(frozen=True)
class ReferenceComparison:
    """A reference, and the candidate's difference from it on the same images.

    Attributes:
        artifact, top1, top5, mean_confidence, ece, nll, reliability: Values of the reference, as in `AccuracyReport`.
        agreement: Percent of images with the same top-1 class.
        sqnr_db: Signal-to-noise ratio of the logits, 10 log10(sum ref^2 / sum (ref - candidate)^2); None when they are identical.
        top1_drop: Top-1 of the reference minus that of the candidate, points; None without labels.
        top1_drop_ci95: Paired 95% interval of the drop.
        mcnemar_p: Two-sided p-value of McNemar's exact test; None without labels.
        flips: Images whose class differs.
        typical_sqnr_db: Mean of the images' SQNR, which a few images cannot decide; identical logits count as 150.
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
    reliability: tuple[ConfidenceBin, ...] = left_out(())


@dataclass(frozen=True)
class TemperatureFit:
    """A temperature that was fitted on every second image, and what it changes on the others.

    Attributes:
        temperature: Number to divide the logits by; 1 where none brings the probabilities nearer to the reference's.
        fitted_images: Number of images that it was fitted on.
        judged_images: Number of images that the other fields were measured on.
        divergence_before: Mean Kullback-Leibler divergence of the probabilities from the reference's, nats.
        divergence_after: The same with the temperature.
        ece_before: Expected calibration error of the candidate, percent; None without labels.
        ece_after: The same with the temperature.
        ece_reference: Expected calibration error of the reference.
        ece_difference_ci95: 95% interval of `ece_after` minus `ece_reference`, from images drawn again.
    """

    temperature: float
    fitted_images: int
    judged_images: int
    divergence_before: float
    divergence_after: float
    ece_before: float | None = None
    ece_after: float | None = None
    ece_reference: float | None = None
    ece_difference_ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class AccuracyReport:
    """The output of `validate --json`; accuracies in percent, None without labels. Older files lack the fields with a default.

    Attributes:
        samples: Number of images.
        mean_confidence: Mean of the highest probability, percent.
        ece: Expected calibration error with 15 bins of equal width, percent.
        nll: Mean negative log-likelihood of the label, nats.
        images_per_s: Images per second of the whole run, decoding included; `profile` measures the model's throughput.
        per_class: Accuracy of every class that occurs, in order; None where it was not requested (`deploy` does not).
        confusion: Images by label (row) and predicted class (column); None for more classes than fit a page.
        confused: Pairs of classes that are confused most often, the worst first.
        warnings: Possible faults of the labels or images, a line each.
        class_order: Order of class folders with numbers as names, "number" or "string", where no option set it.
        reliability: Bins of the ECE that have images, in order; empty without labels.
        temperature: Temperature that `--fit-temperature` found; None where it was not requested.
        corruptions: Accuracies of corrupted images; None where they were not requested.
        ledger: Stages that the change from the reference comes from, from `--explain`; None where it was not requested.
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
    reliability: tuple[ConfidenceBin, ...] = left_out(())
    temperature: TemperatureFit | None = left_out(None)
    corruptions: CorruptionReport | None = left_out(None)
    ledger: DropLedger | None = left_out(None)
