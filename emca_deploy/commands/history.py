"""`emca-deploy history`."""

from pathlib import Path

import click

from emca_deploy.commands import _completions as completions
from emca_deploy.commands import _mlflow_option as tracking
from emca_deploy.commands._console import json_option, remark, show, table_console
from emca_deploy.commands._group import Group
from emca_deploy.commands._store_option import store_option
from emca_deploy.commands._types import INPUT, option

__all__ = ["command"]


@click.group("history", cls=Group)
def command() -> None:
    """Keep results, and show a figure over time.

    The history is an SQLite file to which results are only added. XDG_DATA_HOME moves its folder, and EMCA_DEPLOY_HISTORY names
    another file. `gate --baseline history` compares with the newest result of the same machine and artifact.

    \b
    Examples:
      emca-deploy history add result.json
      emca-deploy history show p50 --artifact model.int8.onnx
    """


@command.command("add")
@click.argument("results", metavar="RESULT.json...", type=INPUT, nargs=-1, required=True)
@store_option
@option("--mlflow", metavar="URI", help="Log them on this MLflow server instead; folders of deployments and sweeps too.")
def add(results: tuple[Path, ...], store: Path | None, mlflow: str | None) -> None:
    """Add results of `profile -o`, `validate -o` or `deploy`, of any version. A known result adds nothing.

    \b
    Examples:
      emca-deploy history add out/result.json
      emca-deploy history add sweep --mlflow http://localhost:5000
    """
    if mlflow is not None:
        tracking.log(mlflow, results)
        return
    from emca_deploy.api.history import add_history

    done = add_history(results, store)
    remark(f"{len(done.added)} added, {len(done.known)} known already: {done.store}")


@command.command("show")
@click.argument("figure", shell_complete=completions.figures)
@option("--artifact", metavar="NAME", unset="all", help="Artifact; of a deployment, its title and the candidate's name.")
@store_option
@json_option
def show_figure(figure: str, artifact: str | None, store: Path | None, as_json: bool) -> None:
    """Show FIGURE over time by machine and artifact: p50, p90, p95, p99, p99.9, throughput, energy, size, drop, top1, agreement.

    Lasting changes are marked, with 95 % intervals of their size and time. Less than 1 % of random orders look like them.

    \b
    Example:
      emca-deploy history show p50 --json
    """
    from emca_deploy.api.history import history
    from emca_deploy.reporting.history import print_history

    report = history(figure, artifact, store)
    show(report, as_json, lambda: print_history(report, table_console()))
