"""The option for a graph that takes plain pixels."""

import click

from emca_deploy.commands._types import option
from emca_deploy.preprocessing import INPUT_FORMS

__all__ = ["input_form_option"]

input_form_option = option(
    "--input",
    "input_form",
    type=click.Choice(INPUT_FORMS),
    unset="normalized float32, NCHW",
    help="Take plain pixels of 0 to 255, in RGB or gray: the graph normalizes them. Images are resized before.",
)
