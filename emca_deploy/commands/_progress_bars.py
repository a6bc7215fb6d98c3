"""Progress on stderr, if that is a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from emca_deploy._progress import Progress
from emca_deploy.commands._console import console_for, echo

__all__ = ["progress", "stages"]


@contextmanager
def progress(description: str, unit: str = "") -> Iterator[Progress]:
    """Show a progress bar on stderr if that is a terminal; yields the callback that moves it.

    With a `unit`, such as "images", the bar shows how many of them are done per second.
    """
    from rich import progress as bars
    from rich.text import Text

    class Rate(bars.ProgressColumn):
        def render(self, task: bars.Task) -> Text:
            return Text(f"{task.speed:,.0f} {unit}/s" if unit and task.speed else "")

    console = console_for(err=True)
    described = bars.TextColumn("{task.description}", markup=False)
    counts, times = (bars.BarColumn(), bars.MofNCompleteColumn(), Rate()), (bars.TimeElapsedColumn(), bars.TimeRemainingColumn())
    with bars.Progress(described, *counts, *times, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def stages(*, tell: bool = True) -> Iterator[Callable[[str], AbstractContextManager[Progress]]]:
    """Show a bar on stderr while a stage runs, and then, if `tell`, a line with its time; yields what opens a stage."""

    @contextmanager
    def stage(name: str) -> Iterator[Progress]:
        started = time.monotonic()
        with progress(name) as report:
            yield report
        if tell:
            echo(f"  {name}: {time.monotonic() - started:.1f} s", err=True)

    yield stage
