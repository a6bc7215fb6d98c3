"""Declarations of command groups and options, and the types of option values."""

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import click

from emca_deploy.errors import InputError, UnknownNameError
from emca_deploy.preprocessing import Size

__all__ = ["INPUT", "OUTPUT", "FileType", "Group", "NumbersType", "SamplesType", "SizeType", "batch_size", "option"]

F = TypeVar("F", bound=Callable[..., Any])

LARGEST_SIDE = 4096


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


class Group(click.Group):
    """A group that suggests the nearest command for one that is not recognized."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that a command line begins with.

        Raises:
            UnknownNameError: no command has that name.
        """
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            what = "command" if ctx.parent is None else f"command of `{self.name}`"
            raise UnknownNameError.of(what, args[0], known, f"`{ctx.command_path} --help` lists them")
        return super().resolve_command(ctx, args)


def _name(param: click.Parameter | None) -> str:
    return param.opts[0] if param is not None else "value"


class SizeType(click.ParamType[Size]):
    """Pixels: "224", or "256x128" for height and width."""

    name = "S|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Return the size."""
        parts = str(value).lower().split("x")
        numbers = [int(part) if part.isascii() and part.isdigit() and len(part) < 6 else 0 for part in parts]
        if len(numbers) > 2 or not all(1 <= number <= LARGEST_SIDE for number in numbers):
            problem = f"{_name(param)} {value}: neither a number of pixels nor HEIGHTxWIDTH, each 1 to {LARGEST_SIDE}"
            raise InputError(problem, f"for example {_name(param)} 224, or {_name(param)} 256x128")
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
