"""`emca-deploy compare`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emca_deploy.commands._console import echo, json_option, show, tell
from emca_deploy.commands._types import INPUT, option
from emca_deploy.errors import InputError

if TYPE_CHECKING:
    from emca_deploy.results.latency import Comparison

__all__ = ["command"]


@click.command("compare")
@click.argument("a", metavar="A", type=INPUT)
@click.argument("b", metavar="B", type=INPUT)
@option("--floor", type=INPUT, metavar="C.npz", help="Run equal to A: what changes between A and C is noise.")
@option("--force", is_flag=True, help="Compare with a warning even if machine or protocol differ or are unknown.")
@option("--seed", type=int, default=0, help="Random seed for the bootstrap.")
@json_option
def command(a: Path, b: Path, floor: Path | None, force: bool, seed: int, as_json: bool) -> None:
    """Compare two runs of `profile`, or the answers of two runs of `validate --logits`.

    From documents of `profile`: how many times faster each candidate is in A than in B. Both runs must come from the same machine
    and use the same protocol. Machines change over time, and the intervals do not include that: to compare artifacts, measure
    them together in one `profile`.

    From .npz files, which may come from two machines: how many predictions change from A to B, and with --floor how many more
    than between two equal runs.

    \b
    Examples:
      emca-deploy profile model.onnx -o before.json
      emca-deploy profile model.onnx -o after.json
      emca-deploy compare after.json before.json
      emca-deploy compare fp32.npz int8.npz --floor fp32-one-thread.npz
    """
    from emca_deploy.api.checking.compare_logits import SUFFIX, compare_logits
    from emca_deploy.api.compare import compare
    from emca_deploy.reporting.logits_comparison import lines_of

    if SUFFIX in (a.suffix.lower(), b.suffix.lower()):
        found = compare_logits(a, b, floor)
        show(found, as_json, lambda: echo("\n".join(lines_of(found))))
        return
    if floor is not None:
        raise InputError(f"{a}: --floor goes with .npz files of `validate --logits`", "leave it out")
    report = compare(a, b, force=force, seed=seed)
    tell(warnings=report.differences)
    show(report, as_json, lambda: _print(report.comparisons))


def _print(comparisons: "Iterable[Comparison]") -> None:
    from emca_deploy.reporting.formats import fixed, interval, plain

    for found in comparisons:
        ratio = f"{fixed(found.ratio_p50)}x (95%: {interval(found.ratio_ci95)})"
        echo(f"{plain(found.a)} against {plain(found.b)}: {ratio}, {found.verdict}")
