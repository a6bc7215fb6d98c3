"""`emca-deploy gate`."""

from pathlib import Path

import click

from emca_deploy.commands._console import echo, json_option, show, table_console
from emca_deploy.commands._durations import DurationType
from emca_deploy.commands._progress_bars import progress
from emca_deploy.commands._store_option import store_option
from emca_deploy.commands._types import INPUT, OUTPUT, option

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
    metavar="RESULT.json|history|ARTIFACT",
    unset="the first candidate of RESULT.json",
    help="What `slowdown` is relative to. history: the newest run of the artifact on the same machine. An artifact is "
    "measured now, together with that of RESULT.json.",
)
@store_option
@option("--confirm", is_flag=True, help="Decide `slowdown` by measuring candidate and baseline together, until it is decided.")
@option("--max-duration", "max_duration_s", type=DurationType(1), default=120.0, help="Most seconds to measure one candidate.")
@option("--artifact", "candidate", metavar="NAME", unset="all but the baseline", help="Candidate to decide about.")
@option("--allow-undecided", is_flag=True, help="Exit with 0 where nothing fails but a requirement is undecided.")
@option("--junit", type=OUTPUT, metavar="FILE.xml", help="Write the decisions as JUnit's XML, a test case each.")
@option("--markdown", type=OUTPUT, metavar="FILE.md", help="Write a table for the comment of a pull request.")
@option("--github", is_flag=True, help="Print annotations of GitHub Actions on stderr.")
@json_option
def command(
    results: tuple[Path, ...],
    require: tuple[str, ...],
    baseline: str | None,
    store: Path | None,
    candidate: str | None,
    allow_undecided: bool,
    confirm: bool,
    max_duration_s: float,
    junit: Path | None,
    markdown: Path | None,
    github: bool,
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
    from emca_deploy.api.gate import GateRequest, gate
    from emca_deploy.reporting.ci import annotations, junit_writer, write_markdown
    from emca_deploy.reporting.files import measured
    from emca_deploy.reporting.requirements import missed_requirements, print_requirements

    files = [(markdown, write_markdown), *(() if junit is None else ((junit, junit_writer()),))]
    request = GateRequest(results, require, baseline, candidate, allow_undecided, confirm, max_duration_s, store)
    with progress("confirming") as advance:
        report, unwritten = measured(lambda: gate(request, advance), files)
    for line in annotations(report) if github else ():
        echo(line, err=True)
    show(report, as_json, lambda: print_requirements(report, table_console()), unwritten)
    if not report.passed:
        raise missed_requirements(report)
