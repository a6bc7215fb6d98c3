"""Data sets: images by index, ready for the network, with labels where known."""

import hashlib
import stat
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.data.archives import ZipStore
from emca_deploy.data.arrays import read_npz
from emca_deploy.data.files import FileStore, FolderStore, printable
from emca_deploy.data.labels import MAX_CLASSES, Labels, LabelsFound, label_images
from emca_deploy.data.layout import Layout, find_images, find_named
from emca_deploy.data.preprocess import decode, decoded_size, normalize, to_pixels
from emca_deploy.errors import DataError, InputError
from emca_deploy.preprocessing import Labelling, Preprocessing

__all__ = ["Batch", "ImageSource", "Labels", "choose_indices", "images_in_order", "open_source"]

Batch = tuple[Float32Array, Labels | None]

IDENTITY_PIECE_BYTES = 1 << 20


class ImageSource(ABC):
    """Images by index, 0 to `len(source)` - 1. Any thread may load.

    Attributes:
        name: Name of the folder or file.
        preprocessing: Steps from an image to the network's input.
        labelled: Labels and their classes; None if unlabelled. The classes of an .npz are "0", "1", ... up to its highest label.
        finished: Whether the images are the network's input already and need no preprocessing.
    """

    name: str
    preprocessing: Preprocessing
    labelled: LabelsFound | None
    finished: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label; empty if unlabelled."""
        return () if self.labelled is None else self.labelled.classes

    @property
    def labels(self) -> Labels | None:
        """(len,) int64, or None if unlabelled."""
        return None if self.labelled is None else self.labelled.labels

    @abstractmethod
    def __len__(self) -> int: ...

    def load(self, index: int) -> Float32Array:
        """Return one image as the network's input: (channels, height, width) float32.

        Raises:
            DataError: the image cannot be read; the error names it.
        """
        return normalize(self.pixels(index), self.preprocessing)

    @abstractmethod
    def pixels(self, index: int) -> Float32Array:
        """Return one image before it is scaled: (channels, height, width) float32 of 0 to 255.

        Raises:
            DataError: the image cannot be read; the error names it.
        """

    @abstractmethod
    def image_size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of one image in pixels, before preprocessing.

        Raises:
            DataError: the image cannot be read.
        """

    @abstractmethod
    def item_name(self, index: int) -> str:
        """Return the name of one image."""

    @abstractmethod
    def identity(self) -> str:
        """Return the sha256 in hex of all names, labels and bytes, which is equal for a folder and a zip of it."""

    @abstractmethod
    def size(self, index: int) -> int:
        """Return the size of one image as it is stored, in bytes."""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """Return one image as it is stored.

        Raises:
            DataError: the image cannot be read.
        """

    def batches(self, batch_size: int, indices: Sequence[int] | None = None, threads: int = 2) -> Iterator[Batch]:
        """Yield batches in order: images (n, channels, height, width) float32 and labels (n,) int64 or None.

        The last may be smaller. `indices` are all images where None. `threads` decode at most one batch ahead, and stop when the
        generator is closed.

        Raises:
            InputError: the batch size or the number of threads is below 1.
            DataError: an image cannot be read.
        """
        if batch_size < 1 or threads < 1:
            raise InputError(f"batch size {batch_size} with {threads} decoding threads", "both must be at least 1")
        chosen = range(len(self)) if indices is None else indices
        return self._batches(batch_size, chosen, threads)

    def _batches(self, batch_size: int, indices: Sequence[int], threads: int) -> Iterator[Batch]:
        pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        pending: deque[Future[None]] = deque()
        filling: deque[Float32Array] = deque()
        submitted = 0

        def submit(end: int) -> None:
            nonlocal submitted
            for position in range(submitted, min(end, len(indices))):
                place = position % batch_size
                if place == 0:
                    count = min(batch_size, len(indices) - position)
                    filling.append(np.empty((count, *self.preprocessing.shape), np.float32))
                pending.append(pool.submit(self._load_into, filling[-1], place, indices[position]))
            submitted = max(submitted, min(end, len(indices)))

        try:
            for start in range(0, len(indices), batch_size):
                members = indices[start : start + batch_size]
                for taken in range(len(members)):
                    submit(start + taken + batch_size + threads)
                    pending.popleft().result()
                yield filling.popleft(), None if self.labels is None else self.labels[list(members)]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _load_into(self, batch: Float32Array, place: int, index: int) -> None:
        batch[place] = self.load(index)  # in the thread: copying whole batches later would delay the runner


class _FileSource(ImageSource):
    """Image files of a folder or zip."""

    def __init__(self, store: FileStore, layout: Layout, preprocessing: Preprocessing, labelling: Labelling) -> None:
        self.name = store.path.resolve().name
        self.preprocessing = preprocessing
        self.labelled = label_images(layout.names, layout.classes, layout.labels, labelling)
        self._store, self._layout = store, layout
        self._sizes: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._layout.names)

    def pixels(self, index: int) -> Float32Array:
        name = self._layout.root + self._layout.names[index]
        shown = self._store.describe(name)
        with self._store.open(name) as stream:
            image = decode(stream, shown, self.preprocessing.exif)
        self._sizes[index] = image.height, image.width
        return to_pixels(image, self.preprocessing, shown)

    def image_size(self, index: int) -> tuple[int, int]:
        if index in self._sizes:  # the image was decoded
            return self._sizes[index]
        name = self._layout.root + self._layout.names[index]
        with self._store.open(name) as stream:
            return decoded_size(stream, self._store.describe(name), self.preprocessing.exif)

    def item_name(self, index: int) -> str:
        return self._layout.names[index]

    def identity(self) -> str:
        total = hashlib.sha256()
        for name in self._layout.names:
            content = hashlib.sha256()
            with self._store.open(self._layout.root + name) as stream:
                while piece := stream.read(IDENTITY_PIECE_BYTES):
                    content.update(piece)
            total.update(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() + content.digest())
        return total.hexdigest()

    def size(self, index: int) -> int:
        return self._store.size(self._layout.root + self._layout.names[index])

    def content(self, index: int) -> bytes:
        with self._store.open(self._layout.root + self._layout.names[index]) as stream:
            return stream.read()


class _ArraySource(ImageSource):
    """Images of an .npz."""

    def __init__(self, path: Path, preprocessing: Preprocessing, labelling: Labelling) -> None:
        self._images, labels = read_npz(path)
        self._path = path
        self.name = path.name
        self.preprocessing = preprocessing
        _check_images(path, self._images, preprocessing)
        self.finished = self._images.dtype == np.float32
        self._own_labels = None if labels is None else _checked_labels(path, labels, len(self._images))
        names = [self.item_name(index) for index in range(len(self))] if labelling.labels is not None else []
        self.labelled = label_images(names, (), (), labelling, self._own_labels)

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> Float32Array:
        return np.array(self._images[index], np.float32, order="C") if self.finished else super().load(index)

    def pixels(self, index: int) -> Float32Array:
        from PIL import Image

        values = self._images[index]
        image = Image.fromarray(np.array(values if values.shape[-1] == 3 else values[..., 0], order="C"))
        return to_pixels(image, self.preprocessing, f"{self._path}: image {index}")

    def image_size(self, index: int) -> tuple[int, int]:
        if self.finished:
            return self.preprocessing.height, self.preprocessing.width
        height, width = self._images[index].shape[:2]
        return height, width

    def item_name(self, index: int) -> str:
        return f"images[{range(len(self))[index]}]"

    def identity(self) -> str:
        total = hashlib.sha256(f"{self._images.dtype} {self._images.shape}".encode())
        for image in self._images:
            total.update(image.tobytes())
        if self._own_labels is not None:
            total.update(self._own_labels.tobytes())
        return total.hexdigest()

    def size(self, index: int) -> int:
        return int(self._images[index].nbytes)

    def content(self, index: int) -> bytes:
        content: bytes = self._images[index].tobytes()
        return content


def _check_images(path: Path, images: npt.NDArray[Any], preprocessing: Preprocessing) -> None:
    shape = tuple(images.shape)
    channels, height, width = preprocessing.shape
    wanted = f"save the network's input, float32 (N, {channels}, {height}, {width}), or images, uint8 (N, H, W, 3 or 1)"
    if images.dtype not in (np.float32, np.uint8):
        raise DataError(f"{path}: 'images' are {images.dtype}", wanted)
    if len(shape) != 4 or not (shape[1] == channels if images.dtype == np.float32 else shape[3] in (1, 3)):
        raise DataError(f"{path}: 'images' are {images.dtype} of shape {shape}", wanted)
    if 0 in shape:
        raise DataError(f"{path}: has no images (shape {shape})", wanted)
    if images.dtype == np.uint8:
        return
    if shape[2:] != (height, width):
        raise DataError(
            f"{path}: images are {shape[2]}x{shape[3]}, the model takes {height}x{width}",
            "save them at the model's size, or as uint8 to have them resized",
        )
    for index, image in enumerate(images):
        if not np.isfinite(image).all():
            raise DataError(f"{path}: image {index} has NaN or infinite values", "correct it, or leave it out")


def _checked_labels(path: Path, labels: npt.NDArray[Any], count: int) -> Labels:
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise DataError(
            f"{path}: 'labels' are {labels.dtype} of shape {tuple(labels.shape)} for {count} images",
            "save one integer per image: the index of its class",
        )
    for label in (labels.min(), labels.max()):
        if not 0 <= int(label) < MAX_CLASSES:
            raise DataError(f"{path}: label {label} is not a class index", f"labels are 0 to {MAX_CLASSES - 1}")
    return np.array(labels, np.int64)


def open_source(
    path: Path, preprocessing: Preprocessing, labelling: Labelling | None = None, images: Sequence[str] | None = None
) -> ImageSource:
    """Open a data set.

    Args:
        path: Folder with one subfolder per class, flat folder of images (no labels), .zip of either, or .npz with `images` (the
            network's input as float32 NCHW, or uint8 NHWC in RGB or gray) and optional integer `labels`.
        preprocessing: Steps from an image to the network's input.
        labelling: The user's options for labels; none where None.
        images: Names of the images of a folder or .zip, in the wanted order and without labels; None for all images.

    Raises:
        DataError: the path is not a data set, lacks one of `images`, or images or labels are damaged, unsafe or in an unknown
            layout.
    """
    labelling = labelling or Labelling()
    kind = _kind(path)
    if kind == ".npz":
        if images is not None:
            raise DataError(f"{printable(str(path))}: has no names of images", "name a folder of images, or a .zip of one")
        return _ArraySource(path, preprocessing, labelling)
    store = FolderStore(path) if kind == "folder" else ZipStore(path)
    layout = find_images(store, may_be_wrapped=kind == ".zip") if images is None else find_named(store, images)
    return _FileSource(store, layout, preprocessing, labelling)


def _kind(path: Path) -> str:
    remedy = "name a folder of images, a .zip of one, or an .npz"
    try:
        status = path.stat()
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise DataError(f"{printable(str(path))}: cannot be read: {reason}", remedy) from exc
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    suffix = path.suffix.lower()
    if not stat.S_ISREG(status.st_mode) or suffix not in (".zip", ".npz"):
        raise DataError(f"{printable(str(path))}: not a data set", remedy)
    return suffix


def choose_indices(count: int, samples: int, labels: Labels | None = None, seed: int = 0) -> list[int]:
    """Choose `samples` of `count` images without replacement, equal on every machine; all where there are fewer.

    With labels (count,) int64 the classes get equal numbers, give or take one; where a class has too few images, the others make
    up for it. Each seed gives its own choice. The indices are in rising order.

    Raises:
        InputError: `samples` is below 1.
    """
    if samples < 1:
        raise InputError(f"{samples} images are too few to choose", "choose at least 1")
    return sorted(images_in_order(count, labels, seed)[:samples])


def images_in_order(count: int, labels: Labels | None = None, seed: int = 0) -> list[int]:
    """Return all indices in an order whose first `samples` are those of `choose_indices`, whatever their number."""
    if labels is not None and labels.shape != (count,):
        raise ValueError(f"labels of shape {labels.shape} for {count} images")
    random = np.random.RandomState(seed)  # its stream is the same in every numpy, unlike that of default_rng
    order = random.permutation(count)
    if labels is not None:
        order = order[_round_robin(labels[order], random)]
    return [int(index) for index in order]


def _round_robin(labels: Labels, random: np.random.RandomState) -> npt.NDArray[np.intp]:
    """Return the positions of `labels`: the first of every class, then the second of every class, and so on."""
    _, dense, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    by_class = np.argsort(dense, kind="stable")
    first = np.cumsum(sizes) - sizes
    turn = np.empty(len(labels), np.int64)
    turn[by_class] = np.arange(len(labels)) - np.repeat(first, sizes)
    place_in_turn = random.permutation(len(sizes))[dense]  # which classes get one more is random
    return np.lexsort((place_in_turn, turn))
