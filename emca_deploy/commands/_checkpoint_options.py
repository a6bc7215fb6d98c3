"""Options that choose among the networks of a checkpoint, and what is said of the choice."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from emca_deploy.commands._console import echo

if TYPE_CHECKING:
    from emca_deploy.models.checkpoints import CheckpointSource

__all__ = ["checkpoint_options", "tell_source"]

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = 6


def checkpoint_options(function: F) -> F:
    """Add --weights and --prefix."""
    options = (
        click.option(
            "--weights",
            type=click.Choice(["ema", "plain"]),
            help="Which weights of the checkpoint: their moving average, or the plain ones.  [default: ema where there is one]",
        ),
        click.option("--prefix", help="What the network's names begin with, where the checkpoint holds several networks."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def tell_source(source: "CheckpointSource") -> None:
    """Print where in the checkpoint the network lay and what was left out; nothing for a bare state dict."""
    for line in _lines(source):
        echo(line)


def _lines(source: "CheckpointSource") -> list[str]:
    lines = []
    places = [
        f"under '{source.container}'" if source.container else "",
        f"behind the prefix '{source.prefix}'" if source.prefix else "",
        f"with the head '{source.head}'" if source.prefix and not source.head.startswith(source.prefix) else "",
    ]
    if any(places):
        lines.append(f"network found {', '.join(filter(None, places))}")
    if source.both:
        other = "plain" if source.weights == "ema" else "ema"
        name = {"ema": "moving average (EMA)", "plain": "plain weights"}
        lines.append(f"weights: the {name[source.weights]}; the file also holds the {name[other]}: --weights {other}")
    elif source.weights == "ema":
        lines.append("weights: a moving average (EMA); the file holds no other")
    if source.left_out:
        shown = [f"{name} ({count})" if count > 1 else name for name, count in source.left_out.items()]
        lines.append(f"note: left out, beside the network: {_first(shown)}")
    if source.inert:
        lines.append(f"note: not loaded, beside the tensors: objects of {_first(list(source.inert))}")
    return lines


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
