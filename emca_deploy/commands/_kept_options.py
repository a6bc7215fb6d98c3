"""Options for the files that `validate` writes besides its result."""

from collections.abc import Callable
from typing import Any, TypeVar

from emca_deploy.commands._types import OUTPUT, option

__all__ = ["kept_options"]

F = TypeVar("F", bound=Callable[..., Any])

_KEPT = (
    option(
        "--logits",
        type=OUTPUT,
        metavar="FILE.npz",
        help="Keep ARTIFACT's answers in this file; an interrupted run continues from it.",
    ),
    option("--reference-logits", type=OUTPUT, metavar="FILE.npz", help="Keep MODEL's answers in this file."),
    option(
        "--flips",
        type=OUTPUT,
        metavar="FILE.csv|.json",
        help="Write all images whose predicted class differs, or all lost and gained detections, to this file.",
    ),
)


def kept_options(function: F) -> F:
    """Add --logits, --reference-logits and --flips."""
    for add in reversed(_KEPT):
        function = add(function)
    return function
