"""Options that say how images become a model's input."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from emca_deploy.commands._options import as_one, image_size_option
from emca_deploy.commands._types import INPUT, NumbersType, SizeType, option
from emca_deploy.errors import InputError
from emca_deploy.preprocessing import (
    CHANNEL_ORDERS,
    EXIF_MODES,
    INTERPOLATIONS,
    PADS,
    RESIZES,
    SCALES,
    PadValue,
    PreprocessingOptions,
)

__all__ = ["preprocessing_options"]

F = TypeVar("F", bound=Callable[..., Any])


class PadValueType(click.ParamType[PadValue]):
    """A pixel value from 0 to 255, or "mean"."""

    name = "V|mean"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PadValue:
        """Return the value, or "mean"."""
        if value == "mean":
            return "mean"
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 255:
            problem = f"--pad-value {value}: neither 'mean' nor a pixel value from 0 to 255"
            raise InputError(problem, "for example --pad-value 114")
        return number


_PREPROCESSING = (
    image_size_option,
    option("--resize", type=click.Choice(RESIZES), unset="shortest", help="How images are resized before the centre crop."),
    option("--resize-size", type=SizeType(), metavar="S|HxW", unset="256/224 of the input", help="Size before the crop, pixels."),
    option("--crop-pct", type=click.FloatRange(0, 1, min_open=True), help="Share that the crop keeps, instead of --resize-size."),
    option(
        "--interpolation",
        type=click.Choice(INTERPOLATIONS),
        metavar="NAME",
        unset="bilinear",
        help=f"Interpolation of the resize: {', '.join(INTERPOLATIONS)}.",
    ),
    option("--pad", type=click.Choice(PADS), unset="center", help="Position of the image in a letterbox."),
    option(
        "--pad-value",
        type=PadValueType(),
        metavar="V|mean",
        unset="114",
        help="Pixel value of a letterbox's border; mean is 0 after normalization.",
    ),
    option("--channels", type=click.Choice(CHANNEL_ORDERS), unset="rgb; gray for one channel", help="Channel order."),
    option("--mean", type=NumbersType(), metavar="A[,B,C]", unset="ImageNet's", help="Channel means of scaled values."),
    option("--std", type=NumbersType(), metavar="A[,B,C]", unset="ImageNet's", help="Channel standard deviations."),
    option("--scale", type=click.Choice([str(scale) for scale in SCALES]), unset="255", help="Divisor of pixel values."),
    option("--exif", type=click.Choice(EXIF_MODES), unset="ignore", help="Whether to rotate images by their EXIF tag."),
    option(
        "--preprocessing",
        "preprocessing_file",
        type=INPUT,
        metavar="FILE",
        help="Read these options from timm's config.json, Hugging Face's preprocessor_config.json or a manifest; "
        "options given here take priority.",
    ),
)

_NAMES = (
    "image_size", "resize_size", "crop_pct", "mean", "std", "resize", "interpolation", "pad", "pad_value", "channels", "exif",
)  # fmt: skip


def preprocessing_options(function: F) -> F:
    """Add all options for preprocessing; the command gets `preprocessing`, a `PreprocessingOptions`."""
    return as_one(function, _PREPROCESSING, "preprocessing", _said)


def _said(values: dict[str, Any]) -> PreprocessingOptions:
    """Take these options out of a command's values and return what they and the file say."""
    from emca_deploy.api.images import read_preprocessing

    scale, file = values.pop("scale"), values.pop("preprocessing_file")
    said = PreprocessingOptions(**{name: values.pop(name) for name in _NAMES}, scale=None if scale is None else int(scale))
    if said.resize_size is not None and said.crop_pct is not None:
        raise InputError("--resize-size and --crop-pct set the same thing", "give only one of them")
    return said if file is None else read_preprocessing(file, said)
