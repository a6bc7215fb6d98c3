"""Progress on stderr, if that is a terminal and `--quiet` is not set."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from emca_deploy._progress import Progress, Stage
from emca_deploy.commands._console import console_for, remark
from emca_deploy.commands._quiet import is_quiet

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["cells", "progress", "stages"]


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
    with bars.Progress(described, *counts, *times, console=console, transient=True, disable=not _animates(console)) as bar:
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
            remark(f"  {name}: {time.monotonic() - started:.1f} s")

    yield stage


@contextmanager
def cells() -> Iterator[tuple[Stage, Callable[[str, int, int], None]]]:
    """Show the finished cells of a sweep and the current stage on stderr.

    Yields what opens a stage, and a callback that prints the line of a finished cell and moves the bar to (done, total).
    """
    from rich import progress as bars

    console = console_for(err=True)
    described = bars.TextColumn("{task.description}", markup=False)
    columns = (described, bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeElapsedColumn())
    with bars.Progress(*columns, console=console, transient=True, disable=not _animates(console)) as bar:
        whole, part = bar.add_task("cells", total=None), bar.add_task("", total=None, visible=False)

        @contextmanager
        def stage(name: str) -> Iterator[Progress]:
            bar.update(part, description=name, completed=0, total=None, visible=True)
            yield lambda done, total: bar.update(part, completed=done, total=total)
            bar.update(part, visible=False)

        def finished(line: str, done: int, total: int) -> None:
            bar.update(whole, completed=done, total=total)
            if not is_quiet():
                console.print(f"  {done}/{total} {line}", markup=False, highlight=False, soft_wrap=True)

        yield stage, finished


def _animates(console: "Console") -> bool:
    """Return whether a console is a terminal that can move its cursor, without `--quiet`. FORCE_COLOR makes no terminal."""
    return console.is_terminal and console.file.isatty() and not console.is_dumb_terminal and not is_quiet()
