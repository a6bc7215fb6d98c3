"""`emca-deploy compare`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emca_deploy.commands._console import echo, json_option, show, tell
from emca_deploy.commands._types import INPUT, option

if TYPE_CHECKING:
    from emca_deploy.results.latency import Comparison

__all__ = ["command"]


@click.command("compare")
@click.argument("a", metavar="A.json", type=INPUT)
@click.argument("b", metavar="B.json", type=INPUT)
@option("--force", is_flag=True, help="Compare with a warning even if machine or protocol differ or are unknown.")
@option("--seed", type=int, default=0, help="Random seed for the bootstrap.")
@json_option
def command(a: Path, b: Path, force: bool, seed: int, as_json: bool) -> None:
    """Compare two runs of `profile`: how many times faster each candidate is in A than in B.

    Both runs must come from the same machine and use the same protocol. Machines change over time, and the intervals do not
    include that: to compare artifacts, measure them together in one `profile`.

    \b
    Example:
      emca-deploy profile model.onnx -o before.json
      emca-deploy profile model.onnx -o after.json
      emca-deploy compare after.json before.json
    """
    from emca_deploy.api.compare import compare

    report = compare(a, b, force=force, seed=seed)
    tell(warnings=report.differences)
    show(report, as_json, lambda: _print(report.comparisons))


def _print(comparisons: "Iterable[Comparison]") -> None:
    from emca_deploy.reporting.formats import fixed, interval, plain

    for found in comparisons:
        ratio = f"{fixed(found.ratio_p50)}x (95%: {interval(found.ratio_ci95)})"
        echo(f"{plain(found.a)} against {plain(found.b)}: {ratio}, {found.verdict}")
