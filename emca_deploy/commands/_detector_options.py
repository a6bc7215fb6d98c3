"""Options for the export of a detector, and what is printed of it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from emca_deploy.commands._console import echo
from emca_deploy.commands._types import option

if TYPE_CHECKING:
    from emca_deploy.api.export import DetectorExport

__all__ = ["detector_options", "print_detector"]

F = TypeVar("F", bound=Callable[..., Any])


def detector_options(function: F) -> F:
    """Add the options for the part, the crops and the rows of a detector."""
    for declare in (
        option("--max-detections", type=click.IntRange(1, 1000), unset="the checkpoint's", help="Rows of a detector's outputs."),
        option(
            "--roi",
            type=click.Choice(["roialign", "gridsample"]),
            unset="roialign",
            help="How the file crops a detector's regions; gridsample is for TensorRT-RTX.",
        ),
        option(
            "--part",
            type=click.Choice(["full", "dense"]),
            default="full",
            help="dense: only the part of a detector before boxes are selected, which the host then does.",
        ),
    ):
        function = declare(function)
    return function


def print_detector(made: "DetectorExport") -> None:
    """Print how many detections match PyTorch's."""
    found = made.parity.found
    if found is None:
        return
    if not found.detections:
        echo("no detection exceeds the score threshold on these images: only the dense outputs were compared")
        return
    errors = f"score {found.score_error:.2g}, box {found.box_error_px:.2g} px"
    errors += "" if found.mask_error is None else f", mask {found.mask_error:.2g}"
    echo(f"{found.matched} of {found.detections} detections on {found.images} images match: largest difference of a {errors}")
    echo(f"suppression: {made.nms_rounds} rounds; these images need {made.longest_chain}")
    if made.half is not None and made.half.found is not None:
        half, near = made.half.found, made.half.allowed
        within = f"score {near.score}, box {near.box_px} px, mask {near.mask}"
        echo(f"{half.matched} of {half.detections} detections in fp16 match those in fp32 within {within}")
