"""Cuts a data set into ranges of images that travel on their own, and joins the answers exactly."""

import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emca_deploy.arrays import Int64Array
from emca_deploy.data.arrays import read_npz
from emca_deploy.data.sources import ImageSource, choose_indices, open_source
from emca_deploy.harness.measure.feed import image_names
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.remote.protocol import ZIP_DATE
from emca_deploy.tasks.flips import ImageNames

__all__ = ["FEWEST_IMAGES", "Cut", "Shard", "Shards", "cut"]

FEWEST_IMAGES = 128
"""Fewest images of a shard: to load a model takes as long as many images."""
BATCHES = 16
"""A shard has a multiple of this many images, so that its batches are those of the whole run."""


@dataclass(frozen=True)
class Shard:
    """A range of the images.

    Attributes:
        path: File with these images only.
        images: Their names in order; None for an .npz file, which has no names.
        count: Number of them.
    """

    path: Path
    images: tuple[str, ...] | None
    count: int


@dataclass(frozen=True)
class Cut:
    """A data set in shards, with the labels and names of all its images in order."""

    shards: tuple[Shard, ...]
    labels: Int64Array | None
    names: ImageNames


class Shards:
    """The shards of data sets as files in a folder, each made once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._made = folder, dict[object, Cut]()
        self._lock = threading.Lock()

    def of(self, data: Path, used: Preprocessing, images: Sequence[str] | None, limit: int | None, batch: int, most: int) -> Cut:
        """Return at most `most` shards of a data set; see `cut`."""
        key = (data, None if images is None else tuple(images), limit, batch, most)
        with self._lock:
            if key not in self._made:
                folder = self._folder / str(len(self._made))
                folder.mkdir()
                self._made[key] = cut(open_source(data, used, images=images), data, limit, batch, most, folder)
            return self._made[key]


def cut(source: ImageSource, data: Path, limit: int | None, batch: int, most: int, folder: Path) -> Cut:
    """Write a data set as shards.

    Args:
        source: Its images.
        data: Folder, .zip or .npz.
        limit: Number of images, evenly over the classes; None for all.
        batch: Images per call.
        most: Largest number of shards.
        folder: Where the shards are written.

    Raises:
        DataError: an image cannot be read.
    """
    indices = choose_indices(len(source), len(source) if limit is None else limit, source.labels)
    step = batch * BATCHES // np.gcd(batch, BATCHES)
    size = max(-(-len(indices) // most), FEWEST_IMAGES)
    size = int(-(-size // step) * step)
    ranges = [indices[start : start + size] for start in range(0, len(indices), size)]
    shards = tuple(_written(data, source, part, folder / str(number)) for number, part in enumerate(ranges))
    found = image_names(source, indices)
    chosen = None if found["indices"] is None else tuple(found["indices"])
    names = ImageNames(tuple(found["classes"]), chosen, tuple(found["files"]))
    labels = None if source.labels is None else np.asarray(source.labels[indices], np.int64)
    return Cut(shards, labels, names)


def _written(data: Path, source: ImageSource, indices: Sequence[int], place: Path) -> Shard:
    if data.suffix.lower() == ".npz" and data.is_file():
        path = place.with_suffix(".npz")
        with path.open("wb") as stream:
            np.savez(stream, images=read_npz(data)[0][list(indices)])
        return Shard(path, None, len(indices))
    path, names = place.with_suffix(".zip"), tuple(source.item_name(index) for index in indices)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index, name in zip(indices, names, strict=True):
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), source.content(index))
    return Shard(path, names, len(indices))
