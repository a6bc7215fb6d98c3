"""What operations on images share: the preprocessing they choose, and what a user should know about it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy.data.choosing import assumed_note, normalised_twice
from emca_deploy.data.preprocessing_files import read_preprocessing_file
from emca_deploy.preprocessing import PreprocessingOptions

if TYPE_CHECKING:
    from emca_deploy.data.sources import ImageSource

__all__ = ["few_images", "image_notes", "image_warnings", "read_preprocessing"]


def read_preprocessing(path: Path | str, said: PreprocessingOptions | None = None) -> PreprocessingOptions:
    """Return what a file says about preprocessing, with what the user says in its place.

    Args:
        path: timm's config.json, Hugging Face's preprocessor_config.json, or a manifest.
        said: what has priority over the file.

    Raises:
        InputError: the file cannot be read, is of no known kind, or asks for something that this package does not do.
    """
    return (said or PreprocessingOptions()).over(read_preprocessing_file(Path(path)))


def image_notes(name: str, source: "ImageSource") -> Iterator[str]:
    """Yield what is assumed of a data set's images."""
    note = None if source.finished else assumed_note(name, source.preprocessing)
    if note is not None:
        yield note


def image_warnings(model: Path, data: Path, source: "ImageSource", said: PreprocessingOptions) -> Iterator[str]:
    """Yield what cannot be meant: pixels that are normalised twice, or options that change nothing."""
    if not source.finished:
        twice = normalised_twice(model, source.preprocessing)
        if twice is not None:
            yield twice
    elif said.says_something:
        yield f"{data}: its float32 images are the input as they are; the options of preprocessing change nothing"


def few_images(data: Path, found: int, wanted: int) -> Iterator[str]:
    """Yield a note where a data set has fewer images than were asked for."""
    if found < wanted:
        yield f"{data} has {found} images, fewer than --samples {wanted}; all were used"
