"""Output of the commands: text and JSON on stdout; remarks, notes and warnings on stderr."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from emca_deploy._text import encodable, printable_lines
from emca_deploy.commands._quiet import is_quiet
from emca_deploy.errors import OutputError
from emca_deploy.results.codec import to_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console_for", "echo", "json_option", "print_json", "remark", "show", "table_console", "tell"]

PIPE_WIDTH = 200
"""Columns of a table in a file or a pipe, which have no edge to wrap at."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout instead of text.")


def echo(text: str = "", *, err: bool = False) -> None:
    """Print text on stdout or stderr, without the control characters that foreign names in it may hold.

    Raises:
        OutputError: stdout cannot be written, for example because a disk is full.
    """
    try:
        click.echo(printable_lines(text), err=err)
    except BrokenPipeError:  # the reader, such as `head`, has gone: no error
        raise
    except OSError as exc:
        if not err:  # where stderr fails, there is nowhere to report it
            raise _unwritable(exc) from exc


def _unwritable(exc: OSError) -> OutputError:
    problem = f"standard output: cannot be written: {exc.strerror or exc}"
    return OutputError(problem, "redirect it to another place; a file named with -o has been written")


def print_json(report: Any) -> None:
    """Print a report, or a JSON document, on stdout."""
    echo(json.dumps(to_json(report), indent=1, allow_nan=False))


def show(report: Any, as_json: bool, print_text: Callable[[], None], unwritten: OutputError | None = None) -> None:
    """Print a report on stdout, as JSON or as text, and then raise `unwritten`, the error of its files."""
    if as_json:
        print_json(report)
    else:
        print_text()
    if unwritten is not None:
        raise unwritten


def table_console() -> "Console":
    """Return a console for tables on stdout: as wide as the terminal, or `PIPE_WIDTH` in a file or a pipe."""
    console = console_for()
    console.width = console.width if console.file.isatty() else PIPE_WIDTH  # FORCE_COLOR sets is_terminal
    return console


def console_for(*, err: bool = False, highlight: bool = True) -> "Console":
    """Return a console on stdout or stderr that prints foreign text without its control characters."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Printable(Console):
        """Every text passes `render` as a segment, with its style apart from it."""

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else encodable(printable_lines(text), self.encoding), style, control)

        def print(self, *objects: Any, **options: Any) -> None:
            try:
                super().print(*objects, **options)
            except BrokenPipeError:
                raise
            except OSError as exc:
                raise _unwritable(exc) from exc

    return Printable(stderr=err, highlight=highlight)


def remark(text: str) -> None:
    """Print a line about what was done on stderr, unless `--quiet` is set."""
    if not is_quiet():
        echo(text, err=True)


def tell(*, notes: Iterable[str] = (), warnings: Iterable[str] = ()) -> None:
    """Print each note and each warning once on stderr; `--quiet` leaves out the notes."""
    for kind, lines in (("note", () if is_quiet() else notes), ("warning", warnings)):
        for line in dict.fromkeys(lines):
            echo(f"{kind}: {line}", err=True)
