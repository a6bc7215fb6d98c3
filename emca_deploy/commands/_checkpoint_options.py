"""Options that choose among the networks of a checkpoint, and what is said of the choice."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from emca_deploy.commands._console import echo

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


def tell_source(source: Mapping[str, Any]) -> None:
    """Print where in the checkpoint the network lay and what was left out, from its JSON; nothing for a bare one."""
    for line in _lines(source):
        echo(line)


def _lines(source: Mapping[str, Any]) -> list[str]:
    lines = []
    head, prefix = source["head"], source["prefix"]
    places = [
        f"under '{source['container']}'" if source["container"] else "",
        f"behind the prefix '{prefix}'" if prefix else "",
        f"with the head '{head}'" if prefix and not head.startswith(prefix) else "",
    ]
    if any(places):
        lines.append(f"network found {', '.join(filter(None, places))}")
    name = {"ema": "moving average (EMA)", "plain": "plain weights"}
    if source["both_weights"]:
        other = "plain" if source["weights"] == "ema" else "ema"
        lines.append(f"weights: the {name[source['weights']]}; the file also holds the {name[other]}: --weights {other}")
    elif source["weights"] == "ema":
        lines.append("weights: a moving average (EMA); the file holds no other")
    if "statistics" in source:
        lines.append(f"note: the average has no batch norm statistics; those under '{source['statistics']}' are used")
    if source["left_out"]:
        shown = [f"{group} ({count})" if count > 1 else group for group, count in source["left_out"].items()]
        lines.append(f"note: left out, beside the network: {_first(shown)}")
    if source["not_loaded"]:
        lines.append(f"note: not loaded, beside the tensors: objects of {_first(source['not_loaded'])}")
    return lines


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
