"""Options for the labels of validation images."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from emca_deploy.commands._options import as_one
from emca_deploy.commands._types import INPUT, option
from emca_deploy.preprocessing import Labelling

__all__ = ["label_options"]

F = TypeVar("F", bound=Callable[..., Any])

_LABELS = (
    option("--labels", type=INPUT, metavar="FILE", help="Labels by image name: lines of 'name label', or a CSV file."),
    option("--class-map", type=INPUT, metavar="FILE", help="Output index of each class, as lines of text or JSON."),
    option("--label-offset", type=click.IntRange(-(2**20), 2**20), default=0, help="Number added to every label."),
    option(
        "--class-order",
        type=click.Choice(("number", "string", "index")),
        unset="number or string, whichever is more accurate",
        help="Order of class folders named by numbers. With index, the number is the output index.",
    ),
)


def label_options(function: F) -> F:
    """Add the options; the command gets `labelling`, a `Labelling`."""
    return as_one(function, _LABELS, "labelling", _labelling)


def _labelling(values: dict[str, Any]) -> Labelling:
    return Labelling(*(values.pop(name) for name in ("labels", "class_map", "label_offset", "class_order")))
