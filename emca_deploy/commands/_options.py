"""Options that several commands share."""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from emca_deploy.commands._console import echo
from emca_deploy.errors import InputError
from emca_deploy.preprocessing import CHANNEL_ORDERS, EXIF_MODES, INTERPOLATIONS, PADS, RESIZES, SCALES, Size, sides

if TYPE_CHECKING:
    from emca_deploy.data.sources import ImageSource
    from emca_deploy.preprocessing import Labelling, Preprocessing, PreprocessingOptions

__all__ = [
    "image_size_option", "io_of", "io_options", "label_options", "output_name_option", "preprocessing_options", "recover_option",
    "tell_assumed", "tell_images", "tell_warnings",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])
LARGEST_SIDE = 4096

recover_option = click.option(
    "--recover",
    type=click.Choice(("none", "bias", "weights")),  # calibration.recovery.LEVELS, which is slow to import
    default="weights",
    show_default=True,
    help="Work spent on accuracy: none, corrected biases, or better rounded weights and then corrected biases.",
)


def _option(param: click.Parameter | None) -> str:
    return param.opts[0] if param is not None else "value"


class _SizeType(click.ParamType[Size]):
    """Pixels: "224", or "256x128" for height and width."""

    name = "S|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Return the size."""
        parts = str(value).lower().split("x")
        numbers = [int(part) if part.isascii() and part.isdigit() and len(part) < 6 else 0 for part in parts]
        if len(numbers) > 2 or not all(1 <= number <= LARGEST_SIDE for number in numbers):
            problem = f"{_option(param)} {value}: neither a number of pixels nor HEIGHTxWIDTH, each 1 to {LARGEST_SIDE}"
            raise InputError(problem, f"for example {_option(param)} 224, or {_option(param)} 256x128")
        return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


class _NumbersType(click.ParamType[tuple[float, ...]]):
    """One finite number for each channel, or one for all."""

    name = "A[,B,C]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the numbers."""
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, 3) or not all(map(isfinite, numbers)):
            problem = f"{_option(param)} {value}: neither one finite number nor three"
            raise InputError(problem, f"for example {_option(param)} 0.485,0.456,0.406")
        return numbers


image_size_option = click.option(
    "--image-size", type=_SizeType(), metavar="S|HxW", help="Height and width of the input.  [default: the model's]"
)
output_name_option = click.option(
    "--output-name", metavar="NAME", help="The output with the logits, where a model has several."
)  # fmt: skip


def io_options(function: F) -> F:
    """Add --image-size and --output-name; the command gets `io`, what `ModelIo` is made of."""
    return _as_one(
        function,
        (image_size_option, output_name_option),
        "io",
        lambda values: io_of(values.pop("image_size"), values.pop("output_name")),
    )


def io_of(image_size: Size | None, output_name: str | None) -> dict[str, Any]:
    """Return what the options say of a model's input and output as JSON values; empty where they say nothing."""
    size = {} if image_size is None else {"image_size": list(sides(image_size))}
    return {**size, **({} if output_name is None else {"output_name": output_name})}


_PREPROCESSING = (
    image_size_option,
    click.option("--resize", type=click.Choice(RESIZES), help="How images are resized.  [default: shortest, then a centre crop]"),
    click.option(
        "--resize-size", type=_SizeType(), metavar="S|HxW", help="Size before the crop.  [default: 256 / 224 of the input]"
    ),
    click.option(
        "--crop-pct", type=click.FloatRange(0, 1, min_open=True), help="Part that the crop keeps, instead of --resize-size."
    ),
    click.option("--interpolation", type=click.Choice(INTERPOLATIONS), help="Of the resize.  [default: bilinear]"),
    click.option("--pad", type=click.Choice(PADS), help="Place of the image in a letterbox.  [default: center]"),
    click.option("--pad-value", type=click.FloatRange(0, 255), help="Pixel value of a letterbox's border.  [default: 114]"),
    click.option("--channels", type=click.Choice(CHANNEL_ORDERS), help="Order of the channels.  [default: rgb, or gray for one]"),
    click.option(
        "--mean",
        type=_NumbersType(),
        metavar="A[,B,C]",
        help="Channel means of scaled values, in the order of --channels.  [ImageNet's]",
    ),
    click.option("--std", type=_NumbersType(), metavar="A[,B,C]", help="Channel standard deviations.  [ImageNet's]"),
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


_LABELS = (
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Labels by image name: lines of 'name label', or a CSV.",
    ),
    click.option(
        "--class-map", type=click.Path(path_type=Path), metavar="FILE", help="The network's output of each class: lines or JSON."
    ),
    click.option("--label-offset", type=click.IntRange(-(2**20), 2**20), default=0, help="Added to every label."),
    click.option(
        "--class-order",
        type=click.Choice(("number", "string", "index")),
        help="Of number-named folders; index: the number is the output.  [default: the more accurate of number and string]",
    ),
)


def preprocessing_options(function: F) -> F:
    """Add all options that say how images become the input; the command gets `preprocessing`, a `PreprocessingOptions`."""
    return _as_one(function, _PREPROCESSING, "preprocessing", _said)


def label_options(function: F) -> F:
    """Add all options that say which labels validation images have; the command gets `labelling`, a `Labelling`."""
    return _as_one(function, _LABELS, "labelling", _labelling)


def _as_one(function: F, options: Sequence[Callable[[Any], Any]], name: str, collect: Callable[[dict[str, Any]], Any]) -> F:
    """Add options to a command, which gets them as one argument; `collect` takes them out of all values."""

    @wraps(function)
    def collected(**values: Any) -> Any:
        value = collect(values)
        return function(**values, **{name: value})

    result: Any = collected
    for option in reversed(options):
        result = option(result)
    wrapped: F = result
    return wrapped


def _labelling(values: dict[str, Any]) -> "Labelling":
    from emca_deploy.preprocessing import Labelling

    offset, order = values.pop("label_offset"), values.pop("class_order")
    return Labelling(values.pop("labels"), values.pop("class_map"), offset, order)


def _said(values: dict[str, Any]) -> "PreprocessingOptions":
    """Take these options out of a command's values and return what they and the file say."""
    from emca_deploy.data.preprocessing_files import read_preprocessing_file
    from emca_deploy.preprocessing import PreprocessingOptions

    names = (
        "image_size",
        "resize_size",
        "crop_pct",
        "mean",
        "std",
        "resize",
        "interpolation",
        "pad",
        "pad_value",
        "channels",
        "exif",
    )
    scale, file = values.pop("scale"), values.pop("preprocessing_file")
    said = PreprocessingOptions(**{name: values.pop(name) for name in names}, scale=None if scale is None else int(scale))
    if said.resize_size is not None and said.crop_pct is not None:
        raise InputError("--resize-size and --crop-pct say the same", "give one of the two")
    return said if file is None else said.over(read_preprocessing_file(file))


def tell_assumed(name: str, used: "Preprocessing") -> None:
    """Print on stderr which preprocessing is assumed."""
    from emca_deploy.data.choosing import assumed_note

    note = assumed_note(name, used)
    if note is not None:
        echo(f"note: {note}", err=True)


def tell_images(model: Path, data: Path, source: "ImageSource", said: "PreprocessingOptions") -> tuple[str, ...]:
    """Say on stderr what is assumed of a data set's images; return warnings of what cannot be meant."""
    from emca_deploy.data.choosing import normalised_twice

    if not source.finished:
        tell_assumed(str(model), source.preprocessing)
        twice = normalised_twice(model, source.preprocessing)
        return () if twice is None else (twice,)
    if not said.says_something:
        return ()
    return (f"{data}: its float32 images are the input as they are; the options of preprocessing change nothing",)


def tell_warnings(warnings: Iterable[str]) -> None:
    """Say each warning once on stderr."""
    for warning in dict.fromkeys(warnings):
        echo(f"warning: {warning}", err=True)
