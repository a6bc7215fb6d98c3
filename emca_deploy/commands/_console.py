"""What the commands share in talking to a person: text and JSON on stdout, notes and warnings on stderr."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from emca_deploy._text import printable_lines
from emca_deploy.errors import OutputError
from emca_deploy.results.codec import to_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console_for", "echo", "json_option", "print_json", "table_console", "tell_notes", "tell_warnings"]

PIPE_WIDTH = 200
"""Columns of a table in a file or a pipe, which has no edge to wrap at."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else there.")


def echo(text: str = "", *, err: bool = False) -> None:
    """Print text of ours on stdout or stderr; foreign names in it come without what a terminal would obey.

    Raises:
        OutputError: stdout cannot be written, for example because a disk is full.
    """
    try:
        click.echo(printable_lines(text), err=err)
    except BrokenPipeError:  # the reader, such as `head`, has gone: no error
        raise
    except OSError as exc:
        if not err:  # a stderr that takes nothing cannot be told of either
            raise _unwritable(exc) from exc


def _unwritable(exc: OSError) -> OutputError:
    problem = f"standard output: cannot be written: {exc.strerror or exc}"
    return OutputError(problem, "send it elsewhere; what -o names, where a command has it, is written all the same")


def print_json(report: Any) -> None:
    """Print a report, or a JSON document, on stdout."""
    echo(json.dumps(to_json(report), indent=1, allow_nan=False))


def table_console() -> "Console":
    """Return the console for tables on stdout: as wide as the terminal, or wide enough for everything in a file or a pipe."""
    console = console_for()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def console_for(*, err: bool = False, highlight: bool = True) -> "Console":
    """Return a console on stdout or stderr that prints foreign text without what a terminal would obey."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Printable(Console):
        """Every text passes `render` as a segment, with its style apart from it."""

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else printable_lines(text), style, control)

        def print(self, *objects: Any, **options: Any) -> None:
            try:
                super().print(*objects, **options)
            except BrokenPipeError:
                raise
            except OSError as exc:
                raise _unwritable(exc) from exc

    return Printable(stderr=err, highlight=highlight)


def tell_notes(notes: Iterable[str]) -> None:
    """Print each note once on stderr."""
    for note in dict.fromkeys(notes):
        echo(f"note: {note}", err=True)


def tell_warnings(warnings: Iterable[str]) -> None:
    """Print each warning once on stderr."""
    for warning in dict.fromkeys(warnings):
        echo(f"warning: {warning}", err=True)
