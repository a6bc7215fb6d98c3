"""Result of `compare` on two files of logits. Units are in the names."""

from dataclasses import dataclass

from emca_deploy.results.accuracy import Flip
from emca_deploy.results.codec import version

__all__ = ["ChangedPredictions", "LogitsComparison"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ChangedPredictions:
    """The images for which two runs predict different classes.

    Attributes:
        images: Number of them.
        percent: Their share of all images.
        ci95: 95% interval of that share, by Clopper and Pearson.
    """

    images: int
    percent: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class LogitsComparison:
    """The output of `compare A.npz B.npz --json`.

    Attributes:
        a, b: The files.
        images: Number of images.
        changed: Changed predictions from A to B.
        equal_images: Number of images whose logits are equal to the bit.
        largest_difference: Largest difference of two logits.
        sqnr_db: Signal-to-noise ratio of B's logits against A's; None where they are equal.
        top1_drop: Top-1 of A minus that of B, points; None without labels.
        top1_drop_ci95: Paired 95% interval of the drop.
        flips: First images whose prediction changes.
        floor: Changed predictions from A to an equal run, the noise floor; None without `--floor`.
        floor_equal_images: Number of images whose logits are equal to the bit in the equal run.
        floor_largest_difference: Largest difference of a logit between A and the equal run.
        near_ties: Number of images whose predicted class leads in A by no more than the largest change of a lead in the equal
            run: noise can change their prediction. A lead is the difference of two logits of an image.
        changed_without_tie: Changed predictions from A to B of all other images, which noise of that size cannot explain.
        without_tie_ci95: Paired 95% interval of their percentage, by Tango; the floor has none of these. Changes are shown to be
            more than noise where it starts above 0, also where the floor is large.
        above_floor: Percent of changed predictions beyond the floor's.
        above_floor_ci95: Paired 95% interval of that difference, by Tango. It holds for other images, not for other runs: where
            equal runs change several predictions, it is too narrow for what differs from run to run.
    """

    a: str
    b: str
    images: int
    changed: ChangedPredictions
    equal_images: int
    largest_difference: float
    sqnr_db: float | None
    top1_drop: float | None = None
    top1_drop_ci95: tuple[float, float] | None = None
    flips: tuple[Flip, ...] = ()
    floor: ChangedPredictions | None = None
    floor_equal_images: int | None = None
    floor_largest_difference: float | None = None
    near_ties: int | None = None
    changed_without_tie: int | None = None
    without_tie_ci95: tuple[float, float] | None = None
    above_floor: float | None = None
    above_floor_ci95: tuple[float, float] | None = None
    schema_version: int = version(SCHEMA_VERSION)
