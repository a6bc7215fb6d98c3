"""Options for what a graph takes and returns: plain pixels, probabilities, names of classes."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from emca_deploy.commands._types import INPUT, option
from emca_deploy.preprocessing import INPUT_FORMS

__all__ = ["input_form_option", "output_options"]

F = TypeVar("F", bound=Callable[..., Any])

input_form_option = option(
    "--input",
    "input_form",
    type=click.Choice(INPUT_FORMS),
    unset="normalized float32, NCHW",
    help="Take plain pixels of 0 to 255, in RGB or gray: the graph normalizes them. Images are resized before.",
)


def output_options(function: F) -> F:
    """Add --softmax and --labels-in-model."""
    softmax = option("--softmax", is_flag=True, help="Return probabilities instead of logits.")
    labels = option(
        "--labels-in-model",
        type=INPUT,
        metavar="FILE",
        help="Keep the name of each class in the file's metadata, as a JSON list under 'classes'. FILE has one name a line.",
    )
    return softmax(labels(function))
