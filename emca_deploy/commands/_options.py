"""Options that several commands share."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isfinite
from typing import Any, TypeVar

import click

from emca_deploy.artifacts import Preprocessing
from emca_deploy.errors import InputError

__all__ = ["preprocessing_options", "read_preprocessing", "recover_option"]

F = TypeVar("F", bound=Callable[..., Any])
CHANNELS = 3

recover_option = click.option(
    "--recover",
    type=click.Choice(("none", "bias", "weights")),  # calibration.recovery.LEVELS, which is slow to import
    default="weights",
    show_default=True,
    help="Work spent on accuracy: none, corrected biases, or better rounded weights and then corrected biases.",
)


def preprocessing_options(function: F) -> F:
    """Add --image-size, --resize-size, --mean and --std."""
    options = (
        click.option("--image-size", type=click.IntRange(1, 4096), help="Height and width of the input.  [default: 224]"),
        click.option("--resize-size", type=click.IntRange(1, 4096), help="Short side before the centre crop.  [256 / 224 of it]"),
        click.option("--mean", help="Channel means of values in [0, 1], R,G,B.  [ImageNet's]"),
        click.option("--std", help="Channel standard deviations, R,G,B.  [ImageNet's]"),
    )
    for option in reversed(options):
        function = option(function)
    return function


def read_preprocessing(base: Preprocessing, values: Mapping[str, Any]) -> Preprocessing:
    """Return `base` with what the options say.

    Raises:
        InputError: a mean or std that is not three finite numbers, or a std that is not positive.
    """
    result = base
    if values.get("image_size"):
        result = replace(Preprocessing.for_size(values["image_size"]), mean=base.mean, std=base.std)
    if values.get("resize_size"):
        result = replace(result, resize_size=values["resize_size"])
    if values.get("mean"):
        result = replace(result, mean=_triple("mean", values["mean"]))
    if values.get("std"):
        result = replace(result, std=_triple("std", values["std"]))
    if min(result.std) <= 0:
        raise InputError(f"--std {values.get('std')}: must be positive", "for example --std 0.229,0.224,0.225")
    return result


def _triple(name: str, text: str) -> tuple[float, float, float]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) == 1:
        numbers *= CHANNELS
    if len(numbers) != CHANNELS or not all(map(isfinite, numbers)):
        raise InputError(f"--{name} {text}: not three numbers", f"for example --{name} 0.485,0.456,0.406")
    return (numbers[0], numbers[1], numbers[2])
