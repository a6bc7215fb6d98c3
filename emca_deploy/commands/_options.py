"""Options that several commands share."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import click

from emca_deploy.commands import _completions as completions
from emca_deploy.commands._durations import DurationType
from emca_deploy.commands._types import INPUT, OUTPUT, SamplesType, SizeType, option
from emca_deploy.preprocessing import model_io

__all__ = [
    "arch_option",
    "as_one",
    "backends_option",
    "data_option",
    "duration_option",
    "image_size_option",
    "io_options",
    "limit_option",
    "output_name_option",
    "samples_option",
    "table_option",
    "threads_option",
]

F = TypeVar("F", bound=Callable[..., Any])

arch_option = option(
    "--arch",
    shell_complete=completions.architectures,
    unset="inferred from the checkpoint",
    help="Architecture; `emca-deploy models` lists them.",
)
backends_option = option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME",
    shell_complete=completions.backends,
    help="Backend to run on; may be repeated.",
)
data_option = option("--data", required=True, type=INPUT, help="Calibration images: a folder, a .zip or an .npz file.")
duration_option = option(
    "--duration", "duration_s", type=DurationType(0.5), default=5.0, help="Seconds to measure each candidate."
)
image_size_option = option(
    "--image-size", type=SizeType(), metavar="S|HxW", unset="the model's", help="Height and width of the input in pixels."
)
limit_option = option(
    "--limit", type=click.IntRange(1), unset="all", help="Number of labelled images to use, equally many per class."
)
output_name_option = option("--output-name", metavar="NAME", help="Name of the output with the logits, if there are several.")
samples_option = option(
    "--samples",
    type=SamplesType(),
    default="300",
    help="Number of calibration images, or auto: images are drawn until more of them would hardly change the logits.",
)
table_option = option("--table", type=OUTPUT, unset="MODEL.ranges.json", help="Range table to reuse or write.")
threads_option = option(
    "--threads", type=click.IntRange(1), unset="one per physical core", help="Number of threads of each runtime."
)


def io_options(function: F) -> F:
    """Add --image-size and --output-name; the command gets `io`, what `ModelIo` is made of."""
    options = (image_size_option, output_name_option)
    return as_one(function, options, "io", lambda values: model_io(values.pop("image_size"), values.pop("output_name")))


def as_one(function: F, options: Sequence[Callable[[Any], Any]], name: str, collect: Callable[[dict[str, Any]], Any]) -> F:
    """Add options to a command, which gets them as one argument; `collect` takes them out of all values."""

    @wraps(function)
    def collected(**values: Any) -> Any:
        value = collect(values)
        return function(**values, **{name: value})

    result: Any = collected
    for add in reversed(options):
        result = add(result)
    wrapped: F = result
    return wrapped
