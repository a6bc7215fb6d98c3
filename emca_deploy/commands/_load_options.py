"""Options of `profile` for how calls come: at a rate, several at once, or beside those of another model."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from emca_deploy.commands._durations import DurationType
from emca_deploy.commands._types import INPUT, option
from emca_deploy.errors import InputError

__all__ = ["load_options"]

F = TypeVar("F", bound=Callable[..., Any])


class _NumbersType(click.ParamType[tuple[Any, ...]]):
    """Numbers: "30", or "5,10,30"."""

    name = "N[,N...]"

    def __init__(self, kind: type[float] | type[int]) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.kind(part) for part in str(value).split(","))
        except ValueError:
            name = param.opts[0] if param is not None else "value"
            raise InputError(f"{name} {value}: not numbers with commas between them", f"for example {name} 1,2,4") from None


class _MillisecondsType(DurationType):
    """A duration such as "20ms", in milliseconds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the milliseconds."""
        return 1000 * super().convert(value, param, ctx)


def _none_is_empty(ctx: click.Context, param: click.Parameter, value: tuple[Any, ...] | None) -> tuple[Any, ...]:
    return value or ()


def _as_text(ctx: click.Context, param: click.Parameter, value: Path | None) -> str | None:
    return None if value is None else str(value)


def load_options(command: F) -> F:
    """Add `--rate`, `--deadline`, `--concurrency`, `--co-run`, which becomes another artifact, `--data` and `--end-to-end`."""
    rate = option(
        "--rate",
        "rates",
        type=_NumbersType(float),
        callback=_none_is_empty,
        help="With --scenario paced: frames per second, such as 5,10,30.",
    )
    deadline = option(
        "--deadline",
        "deadline_ms",
        type=_MillisecondsType(0.0001),
        help="Longest time from when a frame comes to its answer, such as 20ms. Without --rate, the highest rate at which 99.9 % "
        "of the frames meet it is found.",
    )
    concurrency = option(
        "--concurrency",
        type=_NumbersType(int),
        callback=_none_is_empty,
        help="Also make so many calls at once, such as 1,2,4,8, each in a thread with a loaded model of its own.",
    )
    co_run = option("--co-run", metavar="MODEL", help="Measure this model too, alone and at the same time as ARTIFACT.")

    data = option(
        "--data", type=INPUT, callback=_as_text, help="Also measure with images of this data set: a folder, .zip or .npz."
    )

    end_to_end = option("--end-to-end", is_flag=True, help="Also time each stage from an image file of --data to the answer.")

    @wraps(command)
    def with_model(artifacts: tuple[str, ...], co_run: str | None, **values: Any) -> Any:
        if co_run is not None and len(artifacts) != 1:
            raise InputError("--co-run is for one ARTIFACT", "name one, and the other model as --co-run")
        return command(artifacts=(*artifacts, co_run) if co_run else artifacts, co_run=co_run is not None, **values)

    decorated: Any = with_model
    for add in (end_to_end, data, co_run, concurrency, deadline, rate):
        decorated = add(decorated)
    return cast(F, decorated)
