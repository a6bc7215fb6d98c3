"""What the commands share in talking to a person: progress on stderr, JSON on stdout."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ProgressCallback", "json_option", "print_json", "progress", "stages", "table_console"]

PIPE_WIDTH = 200
"""Columns of a table in a file or a pipe, which has no edge to wrap at."""

ProgressCallback = Callable[[int, int], None]
"""Called with (done, total)."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else there.")


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(document, indent=1, allow_nan=False))


@contextmanager
def progress(description: str, unit: str = "") -> Iterator[ProgressCallback]:
    """Show a progress bar with the time left on stderr, when that is a terminal; yields the callback that moves it.

    With a `unit`, for example "images", also how many of them are done a second.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )  # fmt: skip
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} {unit}/s" if unit and task.speed else "")

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def table_console() -> "Console":
    """Return the console for tables on stdout: as wide as the terminal, or wide enough for everything in a file or a pipe."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


@contextmanager
def stages(*, tell: bool = True) -> Iterator[Callable[[str], AbstractContextManager[ProgressCallback]]]:
    """Show the stages of a long walk on stderr, a bar while each runs and then, if `tell`, a line; yields what opens a stage."""

    @contextmanager
    def stage(name: str) -> Iterator[ProgressCallback]:
        started = time.monotonic()
        with progress(name) as report:
            yield report
        if tell:
            click.echo(f"  {name}: {time.monotonic() - started:.1f} s", err=True)

    yield stage
