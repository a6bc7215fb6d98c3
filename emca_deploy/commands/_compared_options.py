"""Options of `validate` for the reference, and for the answers that are compared."""

from collections.abc import Callable
from typing import Any, TypeVar

from emca_deploy.api.names import DEFAULT
from emca_deploy.commands import _completions as completions
from emca_deploy.commands._types import OUTPUT, option

__all__ = ["compared_options"]

F = TypeVar("F", bound=Callable[..., Any])

_COMPARED = (
    option(
        "--reference",
        metavar="MODEL",
        shell_complete=completions.files,
        help="Model to compare with, such as the fp32 .onnx file; it runs on the target's CPU.",
    ),
    option(
        "--reference-backend",
        metavar="NAME",
        shell_complete=completions.backends,
        unset=f"{DEFAULT} for .onnx",
        help="Backend to run MODEL on.",
    ),
    option(
        "--logits",
        type=OUTPUT,
        metavar="FILE.npz",
        help="Keep ARTIFACT's answers in this file; an interrupted run continues from it.",
    ),
    option("--reference-logits", type=OUTPUT, metavar="FILE.npz", help="Keep MODEL's answers in this file."),
    option(
        "--fit-temperature",
        is_flag=True,
        help="Fit the number to divide the logits by, so that the probabilities mean what MODEL's do; kept in the manifest.",
    ),
    option(
        "--corruptions",
        is_flag=False,
        flag_value="all",
        metavar="[KINDS]",
        shell_complete=completions.corruptions,
        help="Measure both on corrupted images too: all, imagenet-c, camera, or kinds such as fog,motion-blur. "
        "A cell stops when its drop is decided against --max-drop, or known to 0.5 points.",
    ),
    option(
        "--explain",
        is_flag=True,
        help="Split the change from MODEL over preprocessing, graph, weights, ranges and runtime, and name layers; ARTIFACT is "
        "an .onnx file.",
    ),
    option(
        "--flips",
        type=OUTPUT,
        metavar="FILE.csv|.json",
        help="Write all images whose predicted class differs, or all lost and gained detections, to this file.",
    ),
)


def compared_options(function: F) -> F:
    """Add --reference, its backend, the temperature, corruptions, and the files of answers and differences."""
    for add in reversed(_COMPARED):
        function = add(function)
    return function
