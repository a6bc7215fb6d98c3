"""Kinds of values that options take."""

from math import isfinite
from typing import Any

import click

from emca_deploy.errors import InputError
from emca_deploy.preprocessing import Size

__all__ = ["NumbersType", "SizeType", "batch_size"]

LARGEST_SIDE = 4096


def _option(param: click.Parameter | None) -> str:
    return param.opts[0] if param is not None else "value"


class SizeType(click.ParamType[Size]):
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


class NumbersType(click.ParamType[tuple[float, ...]]):
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


def batch_size(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """Return the number of images that an option says, or None for "dynamic"."""
    if value == "dynamic":
        return None
    if not (value.isascii() and value.isdigit()) or int(value) < 1:  # '²' is a digit too
        problem = f"{_option(param)} {value}: neither 'dynamic' nor a number of images"
        raise InputError(problem, f"for example {_option(param)} 1")
    return int(value)
