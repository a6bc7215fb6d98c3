"""Results of `check-preprocess`. Units are in the names."""

from dataclasses import dataclass

from emca_deploy.results.codec import version

__all__ = ["PreprocessCheck", "PreprocessCost", "WrongStep"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class WrongStep:
    """A step of a preprocessing that is done in another way than the model needs.

    Attributes:
        step: Name of the step, such as "channel order".
        found: How it is done.
        wanted: How the model needs it.
    """

    step: str
    found: str
    wanted: str


@dataclass(frozen=True)
class PreprocessCost:
    """What the mistakes cost on labelled images.

    Attributes:
        images: Number of images.
        top1: Top-1 with the right preprocessing, percent.
        top1_wrong: Top-1 with the mistakes, percent.
    """

    images: int
    top1: float
    top1_wrong: float


@dataclass(frozen=True)
class PreprocessCheck:
    """The output of `check-preprocess --json`.

    Attributes:
        model: The model.
        images: Number of images that were preprocessed.
        right: Whether the preprocessing gives what the model needs.
        explained: Whether `wrong` gives the same numbers as the preprocessing; true where it is right.
        wrong: The wrong steps; where they do not explain the numbers, those that are certain, such as the size.
        mean_steps: Mean difference from the right input, in 255 steps of a pixel; None where the sizes differ.
        largest_steps: Largest difference from it.
        same_class: Number of these images for which the model predicts the same class; None where it cannot take the input.
        cost: What the mistakes cost in accuracy; None without --data, or where they are not explained.
    """

    model: str
    images: int
    right: bool
    explained: bool
    wrong: tuple[WrongStep, ...]
    mean_steps: float | None
    largest_steps: float | None
    same_class: int | None = None
    cost: PreprocessCost | None = None
    schema_version: int = version(SCHEMA_VERSION)
