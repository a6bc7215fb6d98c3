"""The workers of a cluster on the terminal."""

from typing import TYPE_CHECKING

from emca_deploy.reporting.formats import NONE, plain
from emca_deploy.reporting.output import say
from emca_deploy.reporting.table import Column
from emca_deploy.reporting.terminal import print_columns
from emca_deploy.results.fleet import FleetReport

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_fleet"]


def print_fleet(report: FleetReport, console: "Console") -> None:
    """Print the workers that can be used, and below them why others cannot."""
    usable = [worker for worker in report.workers if not worker.unusable]
    say(console, f"{plain(report.cluster)}: {len(usable)} workers on {report.machines} machines", "bold")
    if usable:
        columns = (
            Column("worker", tuple(plain(one.name) for one in usable)),
            Column("host", tuple(plain(one.host or NONE) for one in usable)),
            Column("machine", tuple(plain(f"{one.hardware} ({one.fingerprint})") for one in usable), rank=3),
            Column("backends", tuple(plain(", ".join(one.backends)) for one in usable), rank=2),
            Column("resources", tuple(plain(", ".join(one.resources)) for one in usable), rank=4),
            Column("latency", tuple("measures" if one.measures else NONE for one in usable)),
            Column("runs", tuple(plain(one.running or NONE) for one in usable), rank=1),
        )
        print_columns(console, columns, [], [])
    for worker in report.workers:
        if worker.unusable:
            say(console, f"not used: {plain(worker.unusable)}", "red")
