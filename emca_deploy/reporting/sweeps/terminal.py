"""A report on the terminal: a deployment, or a sweep with its recommendation."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.formats import plain
from emca_deploy.reporting.output import say, show_table
from emca_deploy.reporting.sweep import print_sweep
from emca_deploy.reporting.sweeps.names import names_of
from emca_deploy.reporting.sweeps.words import cautions_of, change_of, level_of, place_of, sentence_of
from emca_deploy.reporting.terminal import LEVEL_STYLES, print_deploy
from emca_deploy.results.deploy import DeployReport
from emca_deploy.results.sweep_choice import SweepDocument

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_report"]


def print_report(report: DeployReport | SweepDocument, console: "Console") -> None:
    """Print the table and the recommendation of a deployment or a sweep."""
    if isinstance(report, DeployReport):
        print_deploy(report, console)
        return
    print_sweep(report.sweep, console)
    names = names_of(report.sweep.cells)
    for group in report.groups:
        console.print()
        style = LEVEL_STYLES[level_of(report, group)]
        say(console, f"{place_of(group)}: {sentence_of(report, group, names)}", style)
        for caution in cautions_of(report, group, names):
            say(console, f"- {caution}")
    if report.changes:
        console.print()
        rows = [((names[each.key], *change_of(each)), False) for each in report.changes]
        show_table(console, ("cell", f"time / {plain(report.against or '')}", "verdict", "accuracy, points"), rows)
