"""Options of `profile` for frames that come at a rate."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from emca_deploy.commands._durations import DurationType
from emca_deploy.commands._types import option
from emca_deploy.errors import InputError

__all__ = ["paced_options"]

F = TypeVar("F", bound=Callable[..., Any])


class _RatesType(click.ParamType[tuple[float, ...]]):
    """Rates in frames per second: "30", or "5,10,30"."""

    name = "R[,R...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the rates."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            raise InputError(f"--rate {value}: not numbers of frames per second", "for example --rate 5,10,30") from None


class _MillisecondsType(DurationType):
    """A duration such as "20ms", in milliseconds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the milliseconds."""
        return 1000 * super().convert(value, param, ctx)


def _none_is_empty(ctx: click.Context, param: click.Parameter, value: tuple[float, ...] | None) -> tuple[float, ...]:
    return value or ()


def paced_options(command: F) -> F:
    """Add `--rate` and `--deadline`, which become `rates` and `deadline_ms`."""
    deadline = option(
        "--deadline",
        "deadline_ms",
        type=_MillisecondsType(0.0001),
        help="Longest time from when a frame comes to its answer, such as 20ms. Without --rate, the highest rate at which 99.9 % "
        "of the frames meet it is found.",
    )
    rate = option(
        "--rate",
        "rates",
        type=_RatesType(),
        callback=_none_is_empty,
        help="With --scenario paced: frames per second, such as 5,10,30.",
    )
    decorated: F = rate(deadline(command))
    return decorated
