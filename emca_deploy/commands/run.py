"""`emca-deploy run`."""

import json
from pathlib import Path

import click

from emca_deploy.commands._console import echo, tell
from emca_deploy.commands._measuring_options import untuned_option
from emca_deploy.commands._options import threads_option
from emca_deploy.commands._types import INPUT, option
from emca_deploy.results.codec import to_json

__all__ = ["command"]

UNREADABLE = 2


@click.command("run")
@click.argument("bundle", metavar="BUNDLE", type=INPUT)
@click.argument("images", metavar="IMAGE|FOLDER|-...", type=INPUT, nargs=-1, required=True)
@option("--top-k", type=click.IntRange(1), default=5, help="Number of classes, or of a detector's objects, to print.")
@option("--variant", metavar="NAME", unset="the first that runs", help="Variant to run; `inspect` lists them.")
@threads_option
@untuned_option
@option("--watch", is_flag=True, help="Go on with new images of the folder as they appear, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document for each image, each on its line.")
def command(
    bundle: Path,
    images: tuple[Path, ...],
    top_k: int,
    variant: str | None,
    threads: int | None,
    untuned: bool,
    watch: bool,
    as_json: bool,
) -> int:
    """Run the best variant of BUNDLE that this machine can run, and print a line for each image.

    BUNDLE is an .emca file or its unpacked folder, every byte of which is compared first, or a single artifact. The variants are
    tried in the order of their measured times; an engine runs where its backend, version and machine fit. IMAGE is a file, a
    folder, or - for JPEG images on the standard input, such as a camera's Motion JPEG.

    \b
    Examples:
      emca-deploy run model.emca photo.jpg
      emca-deploy run model.emca incoming/ --watch --json
      ffmpeg -i video.mp4 -f mjpeg -q:v 2 - | emca-deploy run model.emca -
    """
    from emca_deploy.api.load_bundle import load_bundle
    from emca_deploy.api.run import check_images, run
    from emca_deploy.reporting.run import line_of

    check_images(images, watch=watch)
    unread = 0
    with load_bundle(bundle, variant, threads, untuned=untuned) as model:
        tell(notes=model.notes)
        try:
            for answers in run(model, images, top_k, watch=watch):
                tell(warnings=[answer.error for answer in answers if answer.error is not None])
                shown = [answer for answer in answers if as_json or answer.error is None]
                if shown:
                    echo("\n".join(json.dumps(to_json(answer)) if as_json else line_of(answer) for answer in shown))
                unread += len([answer for answer in answers if answer.error is not None])
        except KeyboardInterrupt:
            if not watch:
                raise
            return 0
    return UNREADABLE if unread and not watch else 0
