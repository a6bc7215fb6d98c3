"""Progress on stderr, where that is a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from emca_deploy._progress import Progress
from emca_deploy.commands._console import console_for, echo

__all__ = ["progress", "stages"]


@contextmanager
def progress(description: str, unit: str = "") -> Iterator[Progress]:
    """Show a progress bar with the time left on stderr, when that is a terminal; yields the callback that moves it.

    With a `unit`, for example "images", also how many of them are done a second.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )  # fmt: skip
    from rich.progress import (
        Progress as Bar,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} {unit}/s" if unit and task.speed else "")

    console = console_for(err=True)
    described = TextColumn("{task.description}", markup=False)
    columns = (described, BarColumn(), MofNCompleteColumn(), Rate(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def stages(*, tell: bool = True) -> Iterator[Callable[[str], AbstractContextManager[Progress]]]:
    """Show the stages of a long walk on stderr, a bar while each runs and then, if `tell`, a line; yields what opens a stage."""

    @contextmanager
    def stage(name: str) -> Iterator[Progress]:
        started = time.monotonic()
        with progress(name) as report:
            yield report
        if tell:
            echo(f"  {name}: {time.monotonic() - started:.1f} s", err=True)

    yield stage
