"""Answers of `run`: a record for each image, printed as one line of JSON."""

from dataclasses import dataclass

from emca_deploy.results.codec import version

__all__ = ["FoundObject", "ImageAnswer", "RankedClass"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RankedClass:
    """A class of an image.

    Attributes:
        index: Output of the network.
        name: Name of the class; None where nobody stated it.
        probability: Its probability by Softmax, of logits that the temperature in the manifest divides.
    """

    index: int
    name: str | None
    probability: float


@dataclass(frozen=True)
class FoundObject:
    """An object in an image.

    Attributes:
        index: Output of the network.
        name: Name of the class; None where nobody stated it.
        score: Score from 0 to 1.
        box: x1, y1, x2, y2 in pixels of the image.
    """

    index: int
    name: str | None
    score: float
    box: tuple[float, ...]


@dataclass(frozen=True)
class ImageAnswer:
    """The answer for one image.

    Attributes:
        image: Path or name of the image.
        classes: The most probable classes, the first of them first; empty for a detector.
        objects: The objects with the highest scores, the first of them first; empty for a classifier.
        error: Why the image could not be read; None where it could.
    """

    image: str
    classes: tuple[RankedClass, ...] = ()
    objects: tuple[FoundObject, ...] = ()
    error: str | None = None
    schema_version: int = version(SCHEMA_VERSION)
