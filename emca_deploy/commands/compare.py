"""`emca-deploy compare`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from emca_deploy.commands._console import echo, json_option, print_json
from emca_deploy.results.codec import to_json

if TYPE_CHECKING:
    from emca_deploy.results.latency import Comparison

__all__ = ["command"]


@click.command("compare")
@click.argument("a", metavar="A.json", type=click.Path(path_type=Path))
@click.argument("b", metavar="B.json", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Compare although machine or protocol differ or are unknown, and say so.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap.")
@json_option
def command(a: Path, b: Path, force: bool, seed: int, as_json: bool) -> None:
    """Compare two runs of `profile`: how many times faster each candidate was in A than in B.

    Only results of the same machine and the same protocol are compared. Runs at different times differ by more than their
    intervals say, for the machine changes in between: to compare artifacts, `profile` them together.

    \b
    emca-deploy profile model.onnx -o before.json
    emca-deploy compare after.json before.json
    """
    from emca_deploy.harness.measure.comparing import CompareReport, Measured, check_comparable, compare_runs, differences

    ours, theirs = Measured.read(a), Measured.read(b)
    if not force:
        check_comparable(ours.report, theirs.report)
    found = differences(ours.report, theirs.report)
    comparisons = compare_runs(ours, theirs, seed)
    for difference in found:
        echo(f"warning: {difference}", err=True)
    if as_json:
        print_json(to_json(CompareReport(tuple(found), comparisons)))
    else:
        for comparison in comparisons:
            echo(_sentence(comparison))


def _sentence(comparison: "Comparison") -> str:
    from emca_deploy.reporting.formats import fixed, interval, plain

    ratio = f"{fixed(comparison.ratio_p50)}x (95%: {interval(comparison.ratio_ci95)})"
    return f"{plain(comparison.a)} against {plain(comparison.b)}: {ratio}, {comparison.verdict}"
