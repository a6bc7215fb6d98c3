"""Images that are decoded once and kept, in memory or in a file, for all that reads the same images."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from emca_deploy.arrays import Float32Array
from emca_deploy.atomic import hidden_folder
from emca_deploy.data.sources import ImageSource
from emca_deploy.errors import OutputError
from emca_deploy.preprocessing import Preprocessing

__all__ = ["Decoded", "kept_in_memory", "room_for_decoded"]

MOST_OF_FREE = 0.5
"""Share of the free disk space that the file may take; images that need more are decoded each time."""

KEPT_BYTES = 96 * 2**20
"""Most bytes of images in memory; 600 images at 224x224 need 90 MiB."""

_PIXELS, _DONE = "pixels.npy", "done.npy"


@contextmanager
def room_for_decoded(place: Path, count: int, preprocessing: Preprocessing) -> Iterator[Path | None]:
    """Yield a hidden folder in `place` for images of `Decoded`, and remove it at the end; None where they do not fit."""
    shape, kind = (count, *preprocessing.shape), "uint8" if _exact(preprocessing) else "float32"
    try:
        with hidden_folder(place) as folder:
            yield folder if _reserve(folder, shape, kind) else None
    except OutputError:
        yield None


def _exact(preprocessing: Preprocessing) -> bool:
    """Return whether every pixel has one of 256 values before it is scaled."""
    return all(value.is_integer() for value in preprocessing.filling)


def _reserve(folder: Path, shape: tuple[int, ...], kind: str) -> bool:
    size = prod(shape) * np.dtype(kind).itemsize
    if not hasattr(os, "posix_fallocate") or size > MOST_OF_FREE * shutil.disk_usage(folder).free:
        return False
    try:
        open_memmap(folder / _PIXELS, "w+", kind, shape)
        open_memmap(folder / _DONE, "w+", "uint8", shape[:1])
        for path in (folder / _PIXELS, folder / _DONE):
            with path.open("r+b") as stream:  # a full disk raises here, instead of a signal during a later write
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    except OSError:
        return False
    return True


class _Wrapped(ImageSource):
    """The images of another source."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.name, self.preprocessing, self.labelled = source.name, source.preprocessing, source.labelled

    def __len__(self) -> int:
        return len(self._source)

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the source's size of the image."""
        return self._source.image_size(index)

    def item_name(self, index: int) -> str:
        """Return the source's name of the image."""
        return self._source.item_name(index)

    def identity(self) -> str:
        """Return the identity of the source."""
        return self._source.identity()

    def size(self, index: int) -> int:
        """Return the size of one image in the source, in bytes."""
        return self._source.size(index)

    def content(self, index: int) -> bytes:
        """Return one image as the source stores it."""
        return self._source.content(index)


class Decoded(_Wrapped):
    """The images of another source, each decoded at its first use; several processes may share the file, one after the other.

    The file keeps the images `indices`, in this order, in a folder from `room_for_decoded`.
    """

    def __init__(self, source: ImageSource, folder: Path, indices: Sequence[int]) -> None:
        super().__init__(source)
        self._pixels = open_memmap(folder / _PIXELS, "r+")
        self._done = open_memmap(folder / _DONE, "r+")
        self._places = {index: place for place, index in enumerate(indices)}

    def pixels(self, index: int) -> Float32Array:
        """Return one image before it is scaled, from the file if it has it."""
        place = self._places[index]
        if self._done[place]:
            return np.array(self._pixels[place], np.float32)
        found = self._source.pixels(index)
        self._pixels[place] = found
        self._done[place] = 1  # last: a process that is killed before leaves nothing half-written
        return found


class _Kept(_Wrapped):
    """The images of another source, of which the first to be decoded are kept in memory."""

    def __init__(self, source: ImageSource, most: int) -> None:
        super().__init__(source)
        self._most, self._pixels = most, dict[int, npt.NDArray[np.uint8]]()

    def pixels(self, index: int) -> Float32Array:
        """Return one image before it is scaled, from memory if it is there."""
        kept = self._pixels.get(index)
        if kept is not None:
            return kept.astype(np.float32)
        found = self._source.pixels(index)
        if len(self._pixels) < self._most:
            self._pixels[index] = found.astype(np.uint8)
        return found


def kept_in_memory(source: ImageSource) -> ImageSource:
    """Return a source that decodes its images once, as far as `KEPT_BYTES` go; one whose pixels do not fit 8 bits as it is."""
    if source.finished or not _exact(source.preprocessing):
        return source
    return _Kept(source, KEPT_BYTES // prod(source.preprocessing.shape))
