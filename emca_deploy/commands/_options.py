"""Options that several commands share."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from emca_deploy.commands._types import SizeType
from emca_deploy.preprocessing import Labelling, Size, sides

__all__ = [
    "as_one",
    "image_size_option",
    "io_options",
    "label_options",
    "output_name_option",
    "recover_option",
]

F = TypeVar("F", bound=Callable[..., Any])

recover_option = click.option(
    "--recover",
    type=click.Choice(("none", "bias", "weights")),  # calibration.recovery.LEVELS, which is slow to import
    default="weights",
    show_default=True,
    help="Work spent on accuracy: none, corrected biases, or better rounded weights and then corrected biases.",
)
image_size_option = click.option(
    "--image-size", type=SizeType(), metavar="S|HxW", help="Height and width of the input.  [default: the model's]"
)
output_name_option = click.option(
    "--output-name", metavar="NAME", help="The output with the logits, where a model has several."
)  # fmt: skip


def io_options(function: F) -> F:
    """Add --image-size and --output-name; the command gets `io`, what `ModelIo` is made of."""
    return as_one(
        function,
        (image_size_option, output_name_option),
        "io",
        lambda values: _io(values.pop("image_size"), values.pop("output_name")),
    )


def _io(image_size: Size | None, output_name: str | None) -> dict[str, Any]:
    """Return what the options say of a model's input and output as JSON values; empty where they say nothing."""
    size = {} if image_size is None else {"image_size": list(sides(image_size))}
    return {**size, **({} if output_name is None else {"output_name": output_name})}


def as_one(function: F, options: Sequence[Callable[[Any], Any]], name: str, collect: Callable[[dict[str, Any]], Any]) -> F:
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
        help="Order of number-named folders; index: the number is the output.  [default: the more accurate of number and string]",
    ),
)


def label_options(function: F) -> F:
    """Add all options that say which labels validation images have; the command gets `labelling`, a `Labelling`."""
    return as_one(function, _LABELS, "labelling", _labelling)


def _labelling(values: dict[str, Any]) -> Labelling:
    offset, order = values.pop("label_offset"), values.pop("class_order")
    return Labelling(values.pop("labels"), values.pop("class_map"), offset, order)
