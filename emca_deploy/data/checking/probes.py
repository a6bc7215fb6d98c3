"""Images that tell mistakes in preprocessing apart: made by formula, so that every machine has the same pixels."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from emca_deploy.data.preprocess import stored
from emca_deploy.preprocessing import Preprocessing, sides

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PROBES", "Probe", "probes"]

PROBES = 20
"""Number of images."""

TURNED = {0: 6, 2: 3, 5: 8, 9: 2, 13: 5}
"""EXIF orientation of some images; the others have none."""

_QUALITY = 80
_SIDES = (
    (1.37, 1.06), (1.1, 1.45), (1.21, 1.21), (1.02, 1.33), (1.6, 1.15),
    (0.85, 1.2), (1.3, 1.0), (1.12, 1.12), (1.0, 1.7), (1.25, 1.4),
)  # fmt: skip
"""Heights and widths as shares of the size that images are resized to; some are smaller than it."""


@dataclass(frozen=True)
class Probe:
    """An image file.

    Attributes:
        name: File name; its suffix is that of the format.
        content: The file's bytes.
    """

    name: str
    content: bytes

    def opened(self) -> "Image":
        """Return the image as it is stored, before any turn by its EXIF orientation."""
        return stored(self.content, self.name)


def probes(used: Preprocessing) -> tuple[Probe, ...]:
    """Return `PROBES` images for a preprocessing: JPEG and PNG files of odd and even sizes, upright and sideways.

    Each has a zone plate, cos(a r^2), whose frequencies grow from the centre outwards, so that filters and shifts by one pixel
    show; a colour gradient that differs between the channels and the corners, so that orders, mirrors and crops show; noise; and
    squares of a single colour. JPEG files have no chroma subsampling, which decoders handle differently.
    """
    tall, wide = sides(used.image_size if used.resize in ("letterbox", "none") else used.resize_size)
    found = []
    for index in range(PROBES):
        share = _SIDES[index % len(_SIDES)]
        height, width = (max(4, round(side * part) + index % 3) for side, part in zip((tall, wide), share, strict=True))
        if index >= len(_SIDES):
            height, width = width + 1, height
        found.append(_encoded(index, _pixels(index, height, width)))
    return tuple(found)


def _pixels(index: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(index)
    rows, columns = np.mgrid[:height, :width] / max(height, width) - 0.5
    plate = np.cos((rows**2 + columns**2) * max(height, width) * (1.2 + 0.1 * index))
    corner = np.array([[0.9, 0.2, 0.35], [-0.3, 0.5, 0.1], [0.1, -0.4, 0.6]]) + 0.15 * random.standard_normal((3, 3))
    colour = np.stack([0.5 + corner[0][k] / 3 + corner[1][k] * rows + corner[2][k] * columns for k in range(3)], axis=2)
    noise = random.standard_normal((height, width, 3))
    values = 255 * (0.25 + 0.5 * colour) + 45 * plate[:, :, None] + 2 * noise
    for _ in range(6):
        top, left = random.integers(0, height), random.integers(0, width)
        side = max(2, min(height, width) // 9)
        values[top : top + side, left : left + side] = random.integers(0, 256, 3)
    return np.asarray(np.clip(np.round(values), 0, 255), np.uint8)


def _encoded(index: int, pixels: npt.NDArray[np.uint8]) -> Probe:
    from PIL import Image

    stream, image = io.BytesIO(), Image.fromarray(pixels)
    if index % 10 == 3:
        image.save(stream, "PNG", optimize=False, compress_level=6)
        return Probe(f"{index:02}.png", stream.getvalue())
    exif = Image.Exif()
    if index in TURNED:
        exif[0x0112] = TURNED[index]
    image.save(stream, "JPEG", quality=_QUALITY, subsampling=0, exif=exif)
    return Probe(f"{index:02}.jpg", stream.getvalue())
