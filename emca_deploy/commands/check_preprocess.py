"""`emca-deploy check-preprocess`."""

from pathlib import Path

import click

from emca_deploy.commands import _completions as completions
from emca_deploy.commands._console import echo, json_option, show
from emca_deploy.commands._label_options import label_options
from emca_deploy.commands._progress_bars import stages
from emca_deploy.commands._types import INPUT, option
from emca_deploy.preprocessing import Labelling

__all__ = ["command"]


@click.command("check-preprocess")
@click.argument("model", metavar="MODEL", type=INPUT)
@click.argument("words", metavar="-- COMMAND", nargs=-1, required=True, shell_complete=completions.files)
@option("--data", type=INPUT, help="Labelled images, to measure what a mistake costs in top-1.")
@option("--limit", type=click.IntRange(1), default=500, metavar="N", help="Use at most N of these images.")
@option(
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    metavar="SECONDS",
    help="Time that COMMAND may take for one image.",
)
@label_options
@json_option
def command(
    model: Path,
    words: tuple[str, ...],
    data: Path | None,
    limit: int,
    time_limit: float,
    labelling: Labelling,
    as_json: bool,
) -> int:
    """Run your own preprocessing on 20 images, and name what it does otherwise than MODEL needs.

    MODEL is a bundle, or an ONNX model or engine with its manifest. COMMAND runs once for each image, without a shell: {image} in
    it stands for an image file, and {out.npy} for the file that it must write with numpy.save, the input of the model for one
    image. Channel order, scale, mean, std, resize filter, antialiasing, aspect, crop size, rounding, padding, EXIF orientation,
    layout and dtype are checked, also two wrong ones together. The exit code is 4 where something is wrong.

    \b
    Example:
      emca-deploy check-preprocess model.emca --data val/ -- \\
          python preprocess.py {image} {out.npy}
    """
    from emca_deploy.api.checking.check_preprocess import CheckPreprocessRequest, check_preprocess
    from emca_deploy.reporting.check_preprocess import lines_of, wrong_preprocessing

    with stages() as stage:
        report = check_preprocess(CheckPreprocessRequest(model, words, data, limit, time_limit, labelling), stage)
    show(report, as_json, lambda: echo("\n".join(lines_of(report))))
    if not report.right:
        raise wrong_preprocessing(report)
    return 0
