"""Images that are decoded once and kept in a file, for several networks that read the same images."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from emca_deploy.arrays import Float32Array
from emca_deploy.atomic import hidden_folder
from emca_deploy.data.sources import ImageSource
from emca_deploy.errors import OutputError
from emca_deploy.preprocessing import Preprocessing

__all__ = ["Decoded", "room_for_decoded"]

MOST_OF_FREE = 0.5
"""Share of the free disk space that the file may take; images that need more are decoded each time."""

_PIXELS, _DONE = "pixels.npy", "done.npy"


@contextmanager
def room_for_decoded(place: Path, count: int, preprocessing: Preprocessing) -> Iterator[Path | None]:
    """Yield a hidden folder in `place` for images of `Decoded`, and remove it at the end; None where they do not fit."""
    exact = float(preprocessing.pad_value).is_integer()  # then every pixel has one of 256 values
    shape, kind = (count, *preprocessing.shape), "uint8" if exact else "float32"
    try:
        with hidden_folder(place) as folder:
            yield folder if _reserve(folder, shape, kind) else None
    except OutputError:
        yield None


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


class Decoded(ImageSource):
    """The images of another source, each decoded at its first use; several processes may share the file, one after the other.

    The file keeps the images `indices`, in this order, in a folder from `room_for_decoded`.
    """

    def __init__(self, source: ImageSource, folder: Path, indices: Sequence[int]) -> None:
        self._source = source
        self.name, self.preprocessing, self.labelled = source.name, source.preprocessing, source.labelled
        self._pixels = open_memmap(folder / _PIXELS, "r+")
        self._done = open_memmap(folder / _DONE, "r+")
        self._places = {index: place for place, index in enumerate(indices)}

    def __len__(self) -> int:
        return len(self._source)

    def pixels(self, index: int) -> Float32Array:
        """Return one image before it is scaled, from the file if it has it."""
        place = self._places[index]
        if self._done[place]:
            return np.array(self._pixels[place], np.float32)
        found = self._source.pixels(index)
        self._pixels[place] = found
        self._done[place] = 1  # last: a process that is killed before leaves nothing half-written
        return found

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
