"""The preprocessing of operations on images, and their notes and warnings about it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy.calibration.ranges.drawing import SMALLEST, Samples
from emca_deploy.data.choosing import assumed_note, normalised_twice
from emca_deploy.data.preprocessing_files import read_preprocessing_file
from emca_deploy.preprocessing import PreprocessingOptions

if TYPE_CHECKING:
    from emca_deploy.data.sources import ImageSource

__all__ = ["few_images", "image_notes", "image_warnings", "read_preprocessing"]


def read_preprocessing(path: Path | str, said: PreprocessingOptions | None = None) -> PreprocessingOptions:
    """Return the preprocessing in a file.

    Args:
        path: timm's config.json, Hugging Face's preprocessor_config.json, or a manifest.
        said: options with priority over the file.

    Raises:
        InputError: the file cannot be read, is of no known kind, or describes an unsupported preprocessing.
    """
    return (said or PreprocessingOptions()).over(read_preprocessing_file(Path(path)))


def image_notes(name: str, source: "ImageSource") -> Iterator[str]:
    """Yield what is assumed about the preprocessing of a data set."""
    note = None if source.finished else assumed_note(name, source.preprocessing)
    if note is not None:
        yield note


def image_warnings(model: Path, data: Path, source: "ImageSource", said: PreprocessingOptions) -> Iterator[str]:
    """Yield likely mistakes: pixels that are normalised twice, or options without effect."""
    if not source.finished:
        twice = normalised_twice(model, source.preprocessing)
        if twice is not None:
            yield twice
    elif said.says_something:
        yield f"{data}: its float32 images are used as input unchanged, and the options of preprocessing have no effect"


def few_images(data: Path, found: int, wanted: Samples) -> Iterator[str]:
    """Yield a note if a data set has fewer images than `wanted`, or than "auto" draws from."""
    if isinstance(wanted, str):
        if found < SMALLEST:
            yield f"{data} has {found} images, fewer than the {SMALLEST} that --samples {wanted} draws from; all were used"
    elif found < wanted:
        yield f"{data} has {found} images, fewer than --samples {wanted}; all were used"
