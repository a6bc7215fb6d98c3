"""Results of `validate` for a detector: immutable records that convert to JSON and back. Units are in the names."""

from dataclasses import dataclass
from typing import Literal

from emca_deploy.results.codec import version

__all__ = [
    "SCHEMA_VERSION",
    "AveragePrecision",
    "ClassPrecision",
    "DetectionComparison",
    "DetectionFlip",
    "DetectionFlips",
    "DetectionReport",
]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's average precision over the classes with objects, in percent; None where no object counts.

    Attributes:
        ap: Mean over the IoU thresholds 0.5, 0.55, ..., 0.95.
        ap50: Value at IoU 0.5.
        ap75: Value at IoU 0.75.
        ap_small: Value of `ap` for objects of less than 32^2 square pixels.
        ap_medium: Value of `ap` for objects of 32^2 to 96^2 square pixels.
        ap_large: Value of `ap` for objects of more than 96^2 square pixels.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None


@dataclass(frozen=True)
class ClassPrecision:
    """Average precision of one class, in percent; None where the class has no objects, or there are no masks.

    Attributes:
        label: Output of the network, 0 for its first class; -1 for a category that the network does not know.
        objects: Number of objects that can be missed.
        box_ap: AP of the boxes.
        mask_ap: AP of the masks.
        reference_box_ap: AP of the reference's boxes; None without a reference.
        reference_mask_ap: AP of the reference's masks; None without a reference.
    """

    label: int
    name: str
    objects: int
    box_ap: float | None
    mask_ap: float | None = None
    reference_box_ap: float | None = None
    reference_mask_ap: float | None = None


@dataclass(frozen=True)
class DetectionFlip:
    """A detection that only one of the two models has.

    Attributes:
        index: Position of the image in the data set, from 0.
        file: Name of the image in the data set.
        kind: "lost" if only the reference has it, "gained" if only the candidate has it.
        label: Output of the network, 0 for its first class.
        score: Score of the detection, 0 to 1.
        box: x1, y1, x2, y2 in pixels of the image.
        right: Whether it matches an annotated object of its class at IoU 0.5; None without annotations.
    """

    index: int
    file: str
    kind: Literal["lost", "gained"]
    label: int
    score: float
    box: tuple[float, float, float, float]
    right: bool | None = None


@dataclass(frozen=True)
class DetectionFlips:
    """Counts of lost and gained detections, and the first of them.

    Attributes:
        lost: Number of the reference's detections without a match in the candidate.
        gained: Number of the candidate's detections without a match in the reference.
        lost_right: Number of lost detections that match an annotated object; None without annotations.
        gained_right: Number of gained detections that match an annotated object; None without annotations.
        images: Number of images with a lost or gained detection.
        detections: First lost and gained detections in the order of the data set.
    """

    lost: int
    gained: int
    lost_right: int | None
    gained_right: int | None
    images: int
    detections: tuple[DetectionFlip, ...] = ()

    def by_image(self, most: int) -> dict[int, tuple[DetectionFlip, ...]]:
        """Return the listed detections of at most `most` images, by index, in the order of `detections`.

        First come the images with the most harm: the sum of the scores of right detections lost and wrong ones gained.
        """
        found: dict[int, list[DetectionFlip]] = {}
        for flip in self.detections:
            found.setdefault(flip.index, []).append(flip)

        def harm(index: int) -> float:
            return sum(flip.score for flip in found[index] if flip.right is None or flip.right == (flip.kind == "lost"))

        worst = sorted(found, key=lambda index: (-harm(index), index))[:most]
        return {index: tuple(found[index]) for index in worst}


@dataclass(frozen=True)
class DetectionComparison:
    """A reference, and the candidate's difference from it on the same images.

    Attributes:
        artifact: Name of the reference.
        box: AP of the reference's boxes; None without annotations.
        mask: AP of the reference's masks; None without annotated masks.
        compared: Number of the reference's detections with at least `least_score`.
        agreement: Percent of these that a detection of the candidate matches: same class, IoU of the boxes at least 0.5. None
            where there are none.
        least_score: Lowest score of a detection that is compared; its match may have any score.
        box_ap_drop: `ap` of the reference's boxes minus that of the candidate's, points; None without annotated objects.
        box_ap_drop_ci95: Paired 95% bootstrap interval of the drop over images.
        mask_ap_drop: Drop of `ap` of the masks, points; None without annotated masks.
        mask_ap_drop_ci95: Paired 95% bootstrap interval of that drop.
        flips: Lost and gained detections.
    """

    artifact: str
    box: AveragePrecision | None
    mask: AveragePrecision | None
    compared: int
    agreement: float | None
    least_score: float
    box_ap_drop: float | None
    box_ap_drop_ci95: tuple[float, float] | None
    mask_ap_drop: float | None
    mask_ap_drop_ci95: tuple[float, float] | None
    flips: DetectionFlips


@dataclass(frozen=True)
class DetectionReport:
    """The output of `validate --json` for a detector.

    Attributes:
        samples: Number of images.
        objects: Number of annotated objects that can be missed; None without annotations.
        detections: Number of detections, at most 100 per image.
        box: AP of the boxes; None without annotations.
        mask: AP of the masks; None without masks in the network and in the annotations.
        reference: Comparison with the reference; None without one.
        per_class: Figures of each category in order; None without annotations.
        images_per_s: Images per second of the whole run, decoding included; `profile` measures the model's throughput.
        warnings: Possible faults of the annotations or images, a line each.
        task: "detection", which tells this document from that of a classifier.
    """

    artifact: str
    samples: int
    objects: int | None
    detections: int
    box: AveragePrecision | None
    mask: AveragePrecision | None
    reference: DetectionComparison | None
    per_class: tuple[ClassPrecision, ...] | None = None
    images_per_s: float | None = None
    warnings: tuple[str, ...] = ()
    task: Literal["detection"] = "detection"
    schema_version: int = version(SCHEMA_VERSION)
