"""`emca-deploy fleet`."""

from typing import Any

import click

from emca_deploy.commands._cluster_options import cluster_options, fleet_of
from emca_deploy.commands._console import json_option, show, table_console
from emca_deploy.commands._group import Group

__all__ = ["command"]


@click.group("fleet", cls=Group)
def command() -> None:
    """Show the workers of a Dask cluster. `sweep --cluster ADDRESS` runs a plan on them.

    \b
    Example:
      emca-deploy fleet status --cluster tcp://127.0.0.1:8786
    """


@command.command("status")
@cluster_options
@json_option
def status(cluster: dict[str, Any], as_json: bool) -> int:
    """Show the workers of a cluster: machine, backends, resources, and the cell that each runs.

    The exit code is 3 if no worker can be used.

    \b
    Example:
      emca-deploy fleet status --cluster tcp://127.0.0.1:8786
    """
    from emca_deploy.api.fleet import ClusterOptions, fleet_status
    from emca_deploy.reporting.fleet import print_fleet

    report = fleet_status(fleet_of(cluster) or ClusterOptions())
    show(report, as_json, lambda: print_fleet(report, table_console()))
    return 0 if any(not worker.unusable for worker in report.workers) else 3
