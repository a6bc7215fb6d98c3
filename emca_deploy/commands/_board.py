"""What the commands share that run on a Jetson board."""

import click

__all__ = ["power_mode_option"]

power_mode_option = click.option(
    "--power-mode",
    metavar="NAME|ID",
    help="Jetson: nvpmodel's power mode, for as long as this takes; the one from before is put back. Needs root.",
)
