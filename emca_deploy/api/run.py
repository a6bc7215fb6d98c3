"""`run`: what a loaded bundle says about images, which are named, in folders, or arrive over time."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from emca_deploy.api.load_bundle import BATCH, LoadedBundle
from emca_deploy.arrays import Float32Array
from emca_deploy.data.given import Encoded, GivenImage, GivenImages, images_in
from emca_deploy.data.sources import ImageSource, open_source
from emca_deploy.data.streams import in_groups, jpeg_frames, watched
from emca_deploy.errors import DataError, InputError
from emca_deploy.results.run import FoundObject, ImageAnswer, RankedClass
from emca_deploy.tasks.detections import Detections

__all__ = ["check_images", "run"]

STDIN = Path("-")
DATA_SETS = (".zip", ".npz")


def check_images(images: Sequence[Path], *, watch: bool = False) -> None:
    """Refuse images that do not exist, before a model is loaded.

    Raises:
        InputError: an image or folder does not exist, or `watch` or the standard input does not go with the others.
    """
    if watch and (len(images) != 1 or not images[0].is_dir()):
        raise InputError("--watch takes one folder", "name the folder in which images appear")
    if STDIN in images and len(images) > 1:
        raise InputError("- reads images from the standard input, and goes with no others", "name - alone")
    for path in images:
        if path != STDIN and not path.exists():
            raise InputError(f"{path}: no such file or folder", "name images, a folder of images, or - for the standard input")


def run(model: LoadedBundle, images: Sequence[Path], top_k: int = 5, *, watch: bool = False) -> Iterator[list[ImageAnswer]]:
    """Yield the answers for images in their order, some at a time.

    Args:
        model: Loaded bundle.
        images: Image files, folders with images at any depth, data sets (.zip or .npz), or "-" alone: a stream of JPEG images
            on the standard input, such as a camera's Motion JPEG.
        top_k: Number of classes, or of a detector's objects, of each image.
        watch: Whether to go on with new images of the folder as they appear complete; this does not end by itself.

    Raises:
        DataError: a folder has no images, or a data set cannot be read; an image that cannot be read has an answer with an error.
        InputError: the images do not fit the model.
        ModelError: the model fails.
    """
    for source in _sources(model, images, watch=watch):
        for indices, answers in model.parts(source, BATCH):
            failures = source.failures if isinstance(source, GivenImages) and source.failures else {}
            found = _objects(model, answers, top_k) if isinstance(answers, Detections) else _classes(model, answers, top_k)
            names = [source.item_name(index) for index in indices]
            yield [
                ImageAnswer(name, error=failures[index].problem) if index in failures else answer(name)
                for name, index, answer in zip(names, indices, found, strict=True)
            ]


def _sources(model: LoadedBundle, images: Sequence[Path], *, watch: bool) -> Iterator[ImageSource]:
    """Yield sets of images; those that arrive over time as they are there."""
    if watch:
        for group in watched(images[0]):
            yield _given(model, group)
    elif list(images) == [STDIN]:
        # os.read: a thread that waits in a buffered read would hold its lock when the program ends.
        frames = (Encoded(f"frame {number}", content) for number, content in enumerate(jpeg_frames(partial(os.read, 0)), 1))
        for frame_group in in_groups(frames, BATCH):
            yield _given(model, frame_group)
    else:
        named: list[Path] = []
        for path in images:
            if path.suffix.lower() in DATA_SETS and path.is_file():
                yield open_source(path, model.preprocessing)
            elif path.is_dir():
                found = images_in(path)
                if not found:
                    raise DataError(f"{path}: has no images", "name a folder of images")
                named += found
            else:
                named.append(path)
        if named:
            yield _given(model, named)


def _given(model: LoadedBundle, images: Sequence[GivenImage]) -> GivenImages:
    return GivenImages(images, model.preprocessing, keep_going=True)


def _classes(model: LoadedBundle, logits: Float32Array, top_k: int) -> Iterator[Callable[[str], ImageAnswer]]:
    wide = logits.astype(np.float64) / model.temperature
    shares = np.exp(wide - wide.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    order = np.argsort(-wide, axis=1, kind="stable")[:, :top_k]
    for row, places in zip(shares, order, strict=True):
        ranked = tuple(RankedClass(int(place), model.name_of(int(place)), float(row[place])) for place in places)
        yield partial(ImageAnswer, classes=ranked)


def _objects(model: LoadedBundle, found: Detections, top_k: int) -> Iterator[Callable[[str], ImageAnswer]]:
    for rows in found.rows():
        best = islice(zip(found.labels[rows], found.scores[rows], found.boxes[rows], strict=True), top_k)
        objects = (
            FoundObject(int(label), model.name_of(int(label)), float(score), tuple(map(float, box))) for label, score, box in best
        )
        yield partial(ImageAnswer, objects=tuple(objects))
