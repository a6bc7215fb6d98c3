"""Options that choose among the networks of a checkpoint, and a summary of the choice."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import click

from emca_deploy.commands._console import echo
from emca_deploy.commands._types import option

__all__ = ["checkpoint_options", "print_source"]

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = 6


def checkpoint_options(function: F) -> F:
    """Add --weights and --prefix."""
    weights = option(
        "--weights",
        type=click.Choice(["ema", "plain"]),
        unset="ema if there is one",
        help="Weights to take from the checkpoint: their moving average (ema) or the plain ones.",
    )
    return weights(
        option("--prefix", help="Prefix of the network's tensor names, if the checkpoint holds several networks.")(function)
    )


def print_source(source: Mapping[str, Any]) -> None:
    """Print where in the checkpoint the network was found and what was left out, from its JSON; nothing for a bare one."""
    for line in _lines(source):
        echo(line)


def _lines(source: Mapping[str, Any]) -> Iterator[str]:
    head, prefix = source["head"], source["prefix"]
    places = [
        f"under '{source['container']}'" if source["container"] else "",
        f"behind the prefix '{prefix}'" if prefix else "",
        f"with the head '{head}'" if head and prefix and not head.startswith(prefix) else "",
    ]
    if any(places):
        yield f"network found {', '.join(filter(None, places))}"
    name = {"ema": "moving average (EMA)", "plain": "plain weights"}
    if source["both_weights"]:
        other = "plain" if source["weights"] == "ema" else "ema"
        yield f"weights: the {name[source['weights']]}; the file also holds the {name[other]}: --weights {other}"
    elif source["weights"] == "ema":
        yield "weights: a moving average (EMA); the file holds no other"
    if "statistics" in source:
        yield f"note: the average has no batch norm statistics; those under '{source['statistics']}' are used"
    if source["left_out"]:
        shown = [f"{group} ({count})" if count > 1 else group for group, count in source["left_out"].items()]
        yield f"note: not part of the network, left out: {_first(shown)}"
    if source["not_loaded"]:
        yield f"note: not tensors, not loaded: objects of {_first(source['not_loaded'])}"
    for fact in source.get("assumed", ()):
        yield f"note: assumed: {fact}"
    if "unread" in source:
        yield f"note: could not be read from its configuration: {_first(source['unread'])}"


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
