"""Options that say how images become a model's input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from emca_deploy.commands._options import as_one, image_size_option
from emca_deploy.commands._types import NumbersType, SizeType
from emca_deploy.errors import InputError
from emca_deploy.preprocessing import CHANNEL_ORDERS, EXIF_MODES, INTERPOLATIONS, PADS, RESIZES, SCALES, PreprocessingOptions

__all__ = ["preprocessing_options"]

F = TypeVar("F", bound=Callable[..., Any])

_PREPROCESSING = (
    image_size_option,
    click.option("--resize", type=click.Choice(RESIZES), help="How images are resized.  [default: shortest, then a centre crop]"),
    click.option(
        "--resize-size", type=SizeType(), metavar="S|HxW", help="Size before the crop.  [default: 256 / 224 of the input]"
    ),
    click.option(
        "--crop-pct", type=click.FloatRange(0, 1, min_open=True), help="Part that the crop keeps, instead of --resize-size."
    ),
    click.option("--interpolation", type=click.Choice(INTERPOLATIONS), help="Interpolation of the resize.  [default: bilinear]"),
    click.option("--pad", type=click.Choice(PADS), help="Place of the image in a letterbox.  [default: center]"),
    click.option("--pad-value", type=click.FloatRange(0, 255), help="Pixel value of a letterbox's border.  [default: 114]"),
    click.option("--channels", type=click.Choice(CHANNEL_ORDERS), help="Order of the channels.  [default: rgb, or gray for one]"),
    click.option(
        "--mean",
        type=NumbersType(),
        metavar="A[,B,C]",
        help="Channel means of scaled values, in the order of --channels.  [ImageNet's]",
    ),
    click.option("--std", type=NumbersType(), metavar="A[,B,C]", help="Channel standard deviations.  [ImageNet's]"),
    click.option("--scale", type=click.Choice([str(scale) for scale in SCALES]), help="Divisor of pixel values.  [default: 255]"),
    click.option("--exif", type=click.Choice(EXIF_MODES), help="Whether images are turned by their EXIF tag.  [default: ignore]"),
    click.option(
        "--preprocessing",
        "preprocessing_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="timm's config.json, Hugging Face's preprocessor_config.json, or a manifest; options have priority.",
    ),
)


def preprocessing_options(function: F) -> F:
    """Add all options that say how images become the input; the command gets `preprocessing`, a `PreprocessingOptions`."""
    return as_one(function, _PREPROCESSING, "preprocessing", _said)


def _said(values: dict[str, Any]) -> PreprocessingOptions:
    """Take these options out of a command's values and return what they and the file say."""
    from emca_deploy.api.images import read_preprocessing

    names = (
        "image_size", "resize_size", "crop_pct", "mean", "std", "resize", "interpolation", "pad", "pad_value", "channels", "exif",
    )  # fmt: skip
    scale, file = values.pop("scale"), values.pop("preprocessing_file")
    said = PreprocessingOptions(**{name: values.pop(name) for name in names}, scale=None if scale is None else int(scale))
    if said.resize_size is not None and said.crop_pct is not None:
        raise InputError("--resize-size and --crop-pct say the same", "give one of the two")
    return said if file is None else read_preprocessing(file, said)
