"""From an encoded image to the network's input; by default exactly as torchvision's evaluation transforms."""

import io
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.data.opencv_resize import OPENCV_FILTERS, opencv_resized
from emca_deploy.errors import DataError
from emca_deploy.preprocessing import MAX_PIXELS, Preprocessing, sides

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "IMAGE_SUFFIXES",
    "Placement",
    "Rounding",
    "decode",
    "decoded_size",
    "normalize",
    "open_image",
    "resized",
    "stored",
    "to_pixels",
    "to_rgb",
    "upright",
]

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
"""Suffixes of image files, in lower case."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""Formats that are read, whatever the suffix. Pillow knows others too, some of which run other programs."""

SIXTEEN_BIT_MODES = frozenset(("I", "I;16", "I;16B", "I;16L", "I;16N"))

ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""

_opening = threading.Lock()


def decode(stream: BinaryIO, name: str, exif: str = "ignore") -> "Image":
    """Read one image in RGB; `exif` "apply" turns it upright, "ignore" takes the pixels as they are stored.

    Raises:
        DataError: it is not an image, is damaged or truncated, or has more than `MAX_PIXELS` pixels.
    """
    from PIL import UnidentifiedImageError

    try:
        image = open_image(stream, name)
        image.load()
        return upright(image, exif)
    except DataError:
        raise
    except Exception as exc:  # Pillow's decoders raise nearly anything on damaged input, struct.error and IndexError too
        reason = " ".join(str(exc).split()) or type(exc).__name__
        if isinstance(exc, UnidentifiedImageError):  # its own text is the address of the stream object
            reason = f"not an image in any of {', '.join(FORMATS)}"
        raise DataError(f"{name}: cannot be decoded: {reason}", "replace or remove the image") from exc


def stored(content: bytes, name: str) -> "Image":
    """Return an image as it is stored, before any turn by its EXIF orientation.

    Raises:
        DataError: it is not an image, or is damaged.
    """
    try:
        image = open_image(io.BytesIO(content), name)
        image.load()
    except DataError:
        raise
    except Exception as exc:  # Pillow raises nearly anything on damaged input
        raise DataError(f"{name}: cannot be decoded", "replace or remove the image") from exc
    return image


def upright(image: "Image", exif: str) -> "Image":
    """Return an image in RGB; `exif` is as in `decode`.

    Raises:
        ValueError: floating point or 32-bit integer pixels, which have no defined range.
    """
    from PIL import ImageOps

    if exif == "apply":
        with suppress(Exception):  # damaged EXIF: other readers show the pixels as they are stored
            image = ImageOps.exif_transpose(image)
    return to_rgb(image)


def decoded_size(stream: BinaryIO, name: str, exif: str = "ignore") -> tuple[int, int]:
    """Return (height, width) of the result of `decode` in pixels; only the file's header is read.

    Raises:
        DataError: it is not an image, is damaged, or has more than `MAX_PIXELS` pixels.
    """
    try:
        image = open_image(stream, name)
        turned = exif == "apply" and image.getexif().get(ORIENTATION) in SIDEWAYS
    except DataError:
        raise
    except Exception as exc:  # Pillow raises nearly anything on damaged input
        raise DataError(f"{name}: cannot be decoded", "replace or remove the image") from exc
    return (image.width, image.height) if turned else (image.height, image.width)


def open_image(stream: BinaryIO, name: str) -> "Image":
    """Return an image whose pixels are not read yet, as they are stored.

    Raises:
        DataError: it has more than `MAX_PIXELS` pixels.
        OSError: it is no image in one of `FORMATS`; Pillow raises nearly anything on damaged input.
    """
    from PIL import Image

    too_large = DataError(f"{name}: has more than {MAX_PIXELS} pixels", "make the image smaller, or remove it")
    # Pillow warns above its limit and raises at twice that. The filters of warnings are global: hence the lock.
    try:
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(stream, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise too_large from exc
    if image.width * image.height > MAX_PIXELS:
        raise too_large
    return image


def to_rgb(image: "Image") -> "Image":
    """Return the image in mode RGB: 16-bit gray scaled to 8 bits, alpha dropped, palettes and CMYK converted.

    Raises:
        ValueError: floating point or 32-bit integer pixels, which have no defined range.
    """
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode in SIXTEEN_BIT_MODES:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("32-bit integer pixels have no defined range")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")  # 65535 / 255 = 257, rounded
    if image.mode == "F":
        raise ValueError("floating point pixels have no defined range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB gives the same colours, but Pillow warns
    return image.convert("RGB")


@dataclass(frozen=True)
class Rounding:
    """How sizes and places that are no whole pixels are rounded; the defaults are torchvision's.

    Attributes:
        crop: first row and column of the centre crop: "even" (half to even), "floor" or "ceil".
        long_side: longer side after "shortest": "floor" or "round".
    """

    crop: str = "even"
    long_side: str = "floor"


TORCHVISION = Rounding()


def to_pixels(
    image: "Image", preprocessing: Preprocessing, name: str = "image", rounding: Rounding = TORCHVISION
) -> Float32Array:
    """Return one image at the network's size and in its channels, (channels, height, width) float32 of 0 to 255.

    Raises:
        DataError: the image is so narrow that resizing it would make more than `MAX_PIXELS` pixels.
    """
    image = to_rgb(image)
    if preprocessing.channels == "gray":
        image = image.convert("L")
    values = np.atleast_3d(np.asarray(_resized(image, preprocessing, name, rounding)))
    return _fitted(values[:, :, ::-1] if preprocessing.channels == "bgr" else values, preprocessing, rounding)


@dataclass(frozen=True)
class Placement:
    """The place of an image in the network's input: x and y of the input are those of the image times `scale` plus `offset`.

    Attributes:
        scale: Factors of x and y.
        offset: x and y of the image's top left corner in the input, in pixels.
        size: Height and width of the image in pixels.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[int, int]

    @classmethod
    def of(cls, size: tuple[int, int], preprocessing: Preprocessing) -> "Placement":
        """Return it for an image of `size` (height, width), turned upright where `preprocessing` does so."""
        height, width = size
        unchanged = preprocessing.resize == "none"
        wide, tall = (width, height) if unchanged else _resized_size((width, height), preprocessing, TORCHVISION)
        (rows, top), (columns, left) = _spans((tall, wide), preprocessing, TORCHVISION)
        return cls((wide / width, tall / height), (left.start - columns.start, top.start - rows.start), size)

    def to_image(self, boxes: Float32Array) -> Float32Array:
        """Return boxes x1, y1, x2, y2 of the input in the image's pixels, (n, 4) float32 each; they may reach outside."""
        moved = (boxes.astype(np.float64) - np.tile(self.offset, 2)) / np.tile(self.scale, 2)
        return np.asarray(moved, np.float32)


def normalize(pixels: Float32Array, preprocessing: Preprocessing) -> Float32Array:
    """Turn the result of `to_pixels` into the network's input, in place, and return it."""
    pixels /= np.float32(preprocessing.scale)
    pixels -= np.array(preprocessing.mean, np.float32)[:, None, None]
    pixels /= np.array(preprocessing.std, np.float32)[:, None, None]
    return pixels


def _resized(image: "Image", preprocessing: Preprocessing, name: str, rounding: Rounding) -> "Image":
    if preprocessing.resize == "none":
        return image
    width, height = _resized_size(image.size, preprocessing, rounding)
    if width * height > MAX_PIXELS:
        problem = f"{name}: {image.width}x{image.height} is too narrow: resized it has over {MAX_PIXELS} pixels"
        raise DataError(problem, "crop or remove it")
    return resized(image, (height, width), preprocessing.interpolation)


def resized(image: "Image", size: tuple[int, int], interpolation: str) -> "Image":
    """Return an image at another `size` (height, width), with one of `INTERPOLATIONS`."""
    from PIL import Image

    if interpolation in OPENCV_FILTERS:
        values = opencv_resized(np.atleast_3d(np.asarray(image)), size, interpolation)
        return Image.fromarray(values[:, :, 0] if image.mode == "L" else values)
    return image.resize((size[1], size[0]), Image.Resampling[interpolation.upper()])


def _resized_size(size: tuple[int, int], preprocessing: Preprocessing, rounding: Rounding) -> tuple[int, int]:
    """Return the (width, height) in pixels to which an image of `size` (width, height) is resized before crop and padding."""
    width, height = size
    if preprocessing.resize == "squash":
        tall, wide = sides(preprocessing.resize_size)
        return wide, tall
    if preprocessing.resize == "letterbox":
        ratio = min(preprocessing.height / height, preprocessing.width / width)
        return max(1, round(width * ratio)), max(1, round(height * ratio))
    if isinstance(preprocessing.resize_size, int):
        short = preprocessing.resize_size
        exact = short * max(width, height) / min(width, height)
        long = int(exact) if rounding.long_side == "floor" else round(exact)
        return (short, long) if width <= height else (long, short)
    tall, wide = preprocessing.resize_size
    ratio = min(height / tall, width / wide)  # as timm covers a size that is not square
    return round(width / ratio), round(height / ratio)


def _fitted(values: npt.NDArray[np.uint8], preprocessing: Preprocessing, rounding: Rounding) -> Float32Array:
    """Crop and pad an image (h, w, channels) to the input's size: (channels, height, width) float32."""
    (rows, tall), (columns, wide) = _spans(values.shape[:2], preprocessing, rounding)
    cut = values[rows, columns].transpose(2, 0, 1)
    if cut.shape == preprocessing.shape:
        return cut.astype(np.float32, order="C")
    pixels = np.empty(preprocessing.shape, np.float32)
    pixels[:] = np.array(preprocessing.filling, np.float32)[:, None, None]
    pixels[:, tall, wide] = cut
    return pixels


def _spans(
    size: tuple[int, ...], preprocessing: Preprocessing, rounding: Rounding
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return `_span` of the rows and of the columns of a resized image of `size` (height, width)."""
    at_end = preprocessing.resize == "letterbox" and preprocessing.pad == "end"
    wanted = preprocessing.height, preprocessing.width
    return _span(size[0], wanted[0], at_end, rounding.crop), _span(size[1], wanted[1], at_end, rounding.crop)


def _span(have: int, want: int, at_end: bool, rounding: str) -> tuple[slice, slice]:
    """Return which of `have` pixels are kept, and their place among `want` pixels."""
    if have > want:
        twice = have - want
        start = {"even": round(twice / 2), "floor": twice // 2, "ceil": (twice + 1) // 2}[rounding]
        return slice(start, start + want), slice(0, want)
    start = 0 if at_end else (want - have) // 2
    return slice(0, have), slice(start, start + have)
