"""Declarations of options, and the types of their values."""

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import click

from emca_deploy.errors import InputError
from emca_deploy.preprocessing import LARGEST_SIDE, Size, parse_size

__all__ = ["INPUT", "OUTPUT", "FileType", "NumbersType", "SamplesType", "SizeType", "batch_size", "option"]

F = TypeVar("F", bound=Callable[..., Any])


class FileType(click.Path):
    """A file or folder that a command reads, or one that it writes."""

    def __init__(self, *, written: bool) -> None:
        super().__init__(path_type=Path)
        self.written = written


INPUT, OUTPUT = FileType(written=False), FileType(written=True)


def option(*names: str, unset: str = "", **settings: Any) -> Callable[[F], F]:
    """Declare an option whose help text ends with its default; `unset` describes a default that is not a constant."""
    if unset:
        settings["help"] += f"  [default: {unset}]"
    return click.option(*names, **{"show_default": not settings.get("is_flag"), **settings})


def _name(param: click.Parameter | None) -> str:
    return param.opts[0] if param is not None else "value"


class SizeType(click.ParamType[Size]):
    """Pixels: "224", or "256x128" for height and width."""

    name = "S|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Return the size."""
        size = parse_size(str(value))
        if size is None:
            problem = f"{_name(param)} {value}: neither a number of pixels nor HEIGHTxWIDTH, each 1 to {LARGEST_SIDE}"
            raise InputError(problem, f"for example {_name(param)} 224, or {_name(param)} 256x128")
        return size


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
            problem = f"{_name(param)} {value}: neither one finite number nor three"
            raise InputError(problem, f"for example {_name(param)} 0.485,0.456,0.406")
        return numbers


class SamplesType(click.ParamType[int | str]):
    """A number of calibration images, or "auto"."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number, or "auto"."""
        text = str(value)
        if text == "auto":
            return text
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
            raise InputError(f"{_name(param)} {text}: neither 'auto' nor a number of images", f"for example {_name(param)} 300")
        return int(text)


def batch_size(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """Return a batch size, or None for "dynamic"."""
    if value == "dynamic":
        return None
    if not (value.isascii() and value.isdigit()) or int(value) < 1:  # '²' is a digit too
        raise InputError(f"{_name(param)} {value}: neither 'dynamic' nor a number of images", f"for example {_name(param)} 1")
    return int(value)
