"""`emca-deploy compare`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from emca_deploy.commands._console import echo, json_option, print_json, tell_warnings

if TYPE_CHECKING:
    from emca_deploy.results.latency import Comparison

__all__ = ["command"]


@click.command("compare")
@click.argument("a", metavar="A.json", type=click.Path(path_type=Path))
@click.argument("b", metavar="B.json", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Compare although machine or protocol differ or are unknown, and say so.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed for the bootstrap.")
@json_option
def command(a: Path, b: Path, force: bool, seed: int, as_json: bool) -> None:
    """Compare two runs of `profile`: how many times faster each candidate was in A than in B.

    Only results of the same machine and the same protocol are compared. Runs at different times differ by more than their
    intervals say, for the machine changes in between: to compare artifacts, `profile` them together.

    \b
    emca-deploy profile model.onnx -o before.json
    emca-deploy compare after.json before.json
    """
    from emca_deploy.api.compare import compare

    report = compare(a, b, force=force, seed=seed)
    tell_warnings(report.differences)
    if as_json:
        print_json(report)
    else:
        for comparison in report.comparisons:
            echo(_sentence(comparison))


def _sentence(comparison: "Comparison") -> str:
    from emca_deploy.reporting.formats import fixed, interval, plain

    ratio = f"{fixed(comparison.ratio_p50)}x (95%: {interval(comparison.ratio_ci95)})"
    return f"{plain(comparison.a)} against {plain(comparison.b)}: {ratio}, {comparison.verdict}"
