"""`emca-deploy gate`."""

from pathlib import Path

import click

from emca_deploy.commands._console import json_option, show, table_console
from emca_deploy.commands._types import INPUT, option

__all__ = ["command"]


@click.command("gate")
@click.argument("results", metavar="RESULT.json...", type=INPUT, nargs=-1, required=True)
@option(
    "--require",
    metavar="FIGURE<=LIMIT,...",
    multiple=True,
    required=True,
    show_default=False,
    help="Requirements; may be repeated.",
)
@option(
    "--baseline",
    metavar="RESULT.json",
    unset="the first candidate of RESULT.json",
    help="Result that `slowdown` is relative to.",
)
@option("--artifact", "candidate", metavar="NAME", unset="all but the baseline", help="Candidate to decide about.")
@option("--allow-undecided", is_flag=True, help="Exit with 0 where nothing fails but a requirement is undecided.")
@json_option
def command(
    results: tuple[Path, ...],
    require: tuple[str, ...],
    baseline: str | None,
    candidate: str | None,
    allow_undecided: bool,
    as_json: bool,
) -> None:
    """Decide whether the results of `profile -o`, `validate --json` or `deploy` keep requirements.

    A requirement passes if the whole 99.8 % interval of its figure is within the limit, and fails if none of it is. Otherwise it
    is undecided. The exit code is 4 unless all pass.

    Figures: drop and mask-drop in points; top1 and agreement in %; p50, p90, p95, p99 and p99.9 in ms; throughput in images/s;
    slowdown of the median latency in %; energy in mJ per image; size in MiB.

    \b
    Examples:
      emca-deploy gate out --require "drop<=0.2, p99<=8ms, size<=12MiB"
      emca-deploy gate after.json --baseline before.json --require "slowdown<=3%"
    """
    from emca_deploy.api.requirements.gate import GateRequest, gate
    from emca_deploy.reporting.requirements import missed_requirements, print_requirements

    report = gate(GateRequest(results, require, baseline, candidate, allow_undecided))
    show(report, as_json, lambda: print_requirements(report, table_console()))
    if not report.passed:
        raise missed_requirements(report)
