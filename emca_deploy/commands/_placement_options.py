"""Options that decide what is quantized, and to how many bits."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from emca_deploy.commands import _completions as completions
from emca_deploy.commands._durations import DurationType
from emca_deploy.commands._types import option

__all__ = ["placement_options"]

F = TypeVar("F", bound=Callable[..., Any])

_PLACEMENT = (
    option(
        "--float-precision", type=click.Choice(("fp32", "fp16")), default="fp32", help="Precision of the float part on TensorRT."
    ),
    option(
        "--placement",
        type=click.Choice(("recipe", "measured")),
        default="recipe",
        help="Where Q/DQ pairs go: by the backend's recipe, or by what is measured to be fastest.",
    ),
    option(
        "--placement-budget",
        "placement_budget_s",
        type=DurationType(1),
        default=240.0,
        help="Approximate duration of --placement measured in seconds.",
    ),
    option(
        "--target",
        default="cpu",
        shell_complete=completions.targets,
        help="Machine of --placement measured: cpu, ssh://[user@]host[:port], or a named machine.",
    ),
    option(
        "--weight-bits",
        type=click.Choice(("auto", "7", "8")),
        default="auto",
        help="Bits of weights on processors. Without VNNI, 8 can saturate; auto decides by this machine.",
    ),
)


def placement_options(function: F) -> F:
    """Add the options of a placement to a command, which gets each as an argument of its own."""
    found: Any = function
    for add in reversed(_PLACEMENT):
        found = add(found)
    wrapped: F = found
    return wrapped
