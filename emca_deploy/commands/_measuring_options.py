"""Options of the commands that run an artifact and measure it."""

from pathlib import Path

import click

__all__ = ["document_option", "power_mode_option", "precision_option", "scenario_option", "seed_option", "untuned_option"]

document_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Also write the JSON document to this file."
)  # fmt: skip
precision_option = click.option(
    "--precision",
    type=click.Choice(["f32", "bf16"]),
    default="f32",
    show_default=True,
    help="Precision of the float parts, where the backend has a choice.",
)
scenario_option = click.option(
    "--scenario",
    type=click.Choice(["single-stream", "offline"]),
    default="single-stream",
    show_default=True,
    help="One call after the other, or as many at once as the runtime takes.",
)
seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Random seed for the input and the order of the blocks."
)
untuned_option = click.option(
    "--untuned", is_flag=True, help="Ignore the settings that `tune` kept in a manifest."
)  # fmt: skip
power_mode_option = click.option(
    "--power-mode",
    metavar="NAME|ID",
    help="Jetson: nvpmodel's power mode, for as long as this takes; the one from before is put back. Needs root.",
)
