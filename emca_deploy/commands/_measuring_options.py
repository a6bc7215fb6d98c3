"""Options of the commands that run an artifact and measure it."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from emca_deploy.commands import _completions as completions
from emca_deploy.commands._types import OUTPUT, option

__all__ = [
    "document_option",
    "power_mode_option",
    "precision_option",
    "scenario_option",
    "seed_option",
    "target_option",
    "untuned_option",
]

F = TypeVar("F", bound=Callable[..., Any])

document_option = option("-o", "--output", type=OUTPUT, help="Also write the JSON document to this file.")
power_mode_option = option(
    "--power-mode", metavar="NAME|ID", help="Jetson: nvpmodel power mode during the run; restored afterwards. Needs root."
)
precision_option = option(
    "--precision",
    type=click.Choice(["f32", "bf16"]),
    default="f32",
    help="Precision of the float parts, where supported.",
)
seed_option = option("--seed", type=int, default=0, help="Random seed for the input and the order of blocks.")
target_option = option(
    "--target",
    default="cpu",
    shell_complete=completions.targets,
    help="Where to run: cpu, gpu, gpu:1, jetson, ssh://[user@]host[:port][/gpu], or a named machine.",
)
untuned_option = option("--untuned", is_flag=True, help="Ignore the tuned settings in manifests.")

_SCENARIOS = {
    "single-stream": "one call after the other",
    "offline": "as many calls at once as the runtime takes",
    "paced": "a call for each frame at --rate",
}


def scenario_option(*more: str) -> Callable[[F], F]:
    """Declare the option --scenario: single-stream, offline, and `more`."""
    known = ("single-stream", "offline", *more)
    text = " ".join(f"{name}: {_SCENARIOS[name]}." for name in known)
    return option("--scenario", type=click.Choice(known), default="single-stream", help=text)
