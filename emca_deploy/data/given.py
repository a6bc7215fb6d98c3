"""Images that a user names one by one, or holds in memory, rather than as a data set."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.data.files import FolderStore, printable
from emca_deploy.data.preprocess import IMAGE_SUFFIXES, decode, to_pixels, upright
from emca_deploy.data.sources import ImageSource
from emca_deploy.errors import DataError
from emca_deploy.preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Encoded", "GivenImage", "GivenImages", "images_in"]


@dataclass(frozen=True)
class Encoded:
    """An encoded image in memory, such as a frame of a camera, with a name for messages."""

    name: str
    content: bytes


GivenImage = Union[str, Path, Encoded, "Image", npt.NDArray[np.uint8]]
"""An image: a path, encoded bytes, a Pillow image, or an array (H, W, 3) in RGB, (H, W, 1) or (H, W) in gray, of uint8."""


class GivenImages(ImageSource):
    """Images in the given order, without labels.

    Attributes:
        failures: Errors of images that could not be read, by index; the others go on. None raises them.
    """

    labelled = None

    def __init__(self, images: Sequence[GivenImage], preprocessing: Preprocessing, *, keep_going: bool = False) -> None:
        self.name, self.preprocessing = "images", preprocessing
        self.failures: dict[int, DataError] | None = {} if keep_going else None
        self._images, self._sizes = images, dict[int, tuple[int, int]]()

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> Float32Array:
        """Return one image as the network's input; zeros for one that failed."""
        try:
            return super().load(index)
        except DataError as error:
            if self.failures is None:
                raise
            self.failures[index], self._sizes[index] = error, (self.preprocessing.height, self.preprocessing.width)
            return np.zeros(self.preprocessing.shape, np.float32)

    def pixels(self, index: int) -> Float32Array:
        """Return one image before it is scaled."""
        image = self._decoded(index)
        self._sizes[index] = image.height, image.width
        return to_pixels(image, self.preprocessing, self.item_name(index))

    def image_size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of one image."""
        if index not in self._sizes:
            image = self._decoded(index)
            self._sizes[index] = image.height, image.width
        return self._sizes[index]

    def item_name(self, index: int) -> str:
        """Return the path of a file, the name of an encoded image, or the position of another one."""
        image = self._images[index]
        if isinstance(image, (str, Path)):
            return str(image)
        return image.name if isinstance(image, Encoded) else f"images[{index}]"

    def identity(self) -> str:
        """Return the sha256 in hex of all bytes."""
        return hashlib.sha256(b"".join(hashlib.sha256(self.content(index)).digest() for index in range(len(self)))).hexdigest()

    def size(self, index: int) -> int:
        """Return the size of one image, in bytes."""
        return len(self.content(index))

    def content(self, index: int) -> bytes:
        """Return one image as it is stored, or its pixels."""
        image: Any = self._images[index]
        if isinstance(image, (str, Path)):
            return _read(Path(image))
        return image.content if isinstance(image, Encoded) else bytes(image.tobytes())

    def _decoded(self, index: int) -> "Image":
        image, exif, name = self._images[index], self.preprocessing.exif, printable(self.item_name(index))
        if isinstance(image, (str, Path)):
            return decode(io.BytesIO(_read(Path(image))), name, exif)
        if isinstance(image, Encoded):
            return decode(io.BytesIO(image.content), name, exif)
        return _of_array(image, name) if isinstance(image, np.ndarray) else _of_pillow(image, name, exif)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise DataError(f"{printable(str(path))}: cannot be read: {reason}", "check the path and its permissions") from exc


def _of_array(values: npt.NDArray[Any], name: str) -> "Image":
    from PIL import Image

    flat = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if values.dtype != np.uint8 or 0 in values.shape or not (flat.ndim == 2 or (flat.ndim == 3 and flat.shape[-1] == 3)):
        problem = f"{name}: is an array of {values.dtype} with shape {values.shape}"
        raise DataError(problem, "give uint8 of shape (H, W, 3) in RGB, or (H, W) in gray")
    return Image.fromarray(np.ascontiguousarray(flat)).convert("RGB")


def _of_pillow(image: Any, name: str, exif: str) -> "Image":
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise DataError(f"{name}: is a {type(image).__name__}", "give a path, a Pillow image, or an array of uint8")
    try:
        image.load()
        return upright(image, exif)
    except Exception as exc:  # Pillow's decoders raise nearly anything on damaged input
        raise DataError(f"{name}: cannot be decoded: {exc}", "replace or remove the image") from exc


def images_in(folder: Path) -> list[Path]:
    """Return the images in a folder and the folders below it, in the order of their names; hidden ones are left out.

    Raises:
        DataError: the folder cannot be listed.
    """
    names = [name for name in FolderStore(folder).names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    return [folder / name for name in sorted(names) if not any(part.startswith(".") for part in name.split("/"))]
