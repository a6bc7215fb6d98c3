"""`emca-deploy sweep`."""

from pathlib import Path
from typing import Any

import click

from emca_deploy.commands import _mlflow_option as tracking
from emca_deploy.commands._cluster_options import cluster_options, fleet_of
from emca_deploy.commands._console import json_option, show, table_console, tell
from emca_deploy.commands._durations import DurationType
from emca_deploy.commands._progress_bars import cells
from emca_deploy.commands._types import INPUT, OUTPUT, option

__all__ = ["command"]


@click.command("sweep")
@click.argument("plan", metavar="PLAN.toml", type=INPUT)
@option("-o", "--output", required=True, type=OUTPUT, help="Folder of the results. A second run in it continues the sweep.")
@option("--dry-run", is_flag=True, help="List the cells with their estimated time in order, and run none.")
@option(
    "--only",
    multiple=True,
    metavar="PATTERN|KEY=VALUE",
    help="Run only cells whose name matches, such as '*int8*', or whose value does, such as backend=openvino; may be repeated.",
)
@option("--retry-failed", is_flag=True, help="Run failed cells again.")
@option("--budget", "budget_s", type=DurationType(0), unset="none", help="Duration after which no further cell is started.")
@tracking.mlflow_option
@cluster_options
@option("--local-workers", type=click.IntRange(1), unset="none", help="Number of worker processes to start on this machine.")
@option("--pin", is_flag=True, help="Give each local worker one core and one thread.")
@json_option
def command(
    plan: Path,
    output: Path,
    dry_run: bool,
    only: tuple[str, ...],
    retry_failed: bool,
    budget_s: float | None,
    mlflow: str | None,
    cluster: dict[str, Any],
    local_workers: int | None,
    pin: bool,
    as_json: bool,
) -> int:
    """Measure every combination of models, image sizes, precisions, backends, targets and scenarios in PLAN.toml.

    Each combination is a cell, and each finished cell is a file. A second run measures what is missing or has changed. A failed
    cell is kept with its error and stops nothing; the exit code is that of the first one.

    \b
    Examples:
      emca-deploy sweep plan.toml -o sweep --dry-run
      emca-deploy sweep plan.toml -o sweep --budget 20m
      emca-deploy sweep plan.toml -o sweep --only backend=openvino --retry-failed
      emca-deploy sweep plan.toml -o sweep --cluster tls://build-server:8786
    """
    from emca_deploy.api.sweep import SweepRequest, sweep
    from emca_deploy.reporting.sweep import finished_line, print_sweep

    tracking.check(mlflow, output)
    fleet = fleet_of(cluster, local_workers, pin)
    request = SweepRequest(plan, output, dry_run, only, retry_failed, budget_s, fleet)
    with cells() as (stage, finished):
        report = sweep(request, stage, lambda row, done, total: finished(finished_line(row), done, total))
    tell(notes=report.notes)
    show(report, as_json, lambda: print_sweep(report, table_console()))
    tracking.log(None if dry_run else mlflow, [output])
    return 0 if dry_run else next((row.exit_code for row in report.cells if row.status == "failed"), 0)
