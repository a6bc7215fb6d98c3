"""What a shell completes an argument or option with, where its type does not say so."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["architectures", "backends", "boards", "corruptions", "figures", "files", "machines", "methods", "targets"]

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def _one_of(read: Callable[[], Iterable[str]], *, listed: bool = False) -> Complete:
    """Return a completion with the names that `read` returns; of a list, "a,b", the last is completed."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        before, comma, last = incomplete.rpartition(",") if listed else ("", "", incomplete)
        return [CompletionItem(before + comma + name) for name in read() if name.startswith(last)]

    return complete


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Complete the name of a file."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _backends() -> Iterable[str]:
    from emca_deploy.api.names import BACKENDS

    return BACKENDS


def _methods() -> Iterable[str]:
    from emca_deploy.api.names import METHOD_NAMES

    return METHOD_NAMES


def _architectures() -> Iterable[str]:
    from emca_deploy.api.names import architecture_names

    return architecture_names()


def _boards() -> Iterable[str]:
    from emca_deploy.api.names import board_names

    return board_names()


def _machines() -> Iterable[str]:
    from emca_deploy.api.names import machine_names

    return machine_names()


def _corruptions() -> Iterable[str]:
    from emca_deploy.api.names import corruption_names

    return corruption_names()


def _targets() -> Iterable[str]:
    from emca_deploy.api.names import target_names

    return target_names()


def _figures() -> Iterable[str]:
    from emca_deploy.results.requirements import FIGURES

    return FIGURES


architectures, backends, boards = _one_of(_architectures), _one_of(_backends), _one_of(_boards)
figures, machines, methods = _one_of(_figures), _one_of(_machines), _one_of(_methods)
targets, corruptions = _one_of(_targets, listed=True), _one_of(_corruptions, listed=True)
