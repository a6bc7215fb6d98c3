"""From an encoded image to the network's input, exactly as torchvision's evaluation transforms do it."""

import threading
import warnings
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from emca_deploy.artifacts import Preprocessing
from emca_deploy.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "Float32Array", "decode", "preprocess", "to_rgb"]

Float32Array = npt.NDArray[np.float32]

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
"""What counts as an image file, in lower case."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""What a file may be, whatever its suffix says: Pillow reads others too, some of them through outside programs."""

MAX_PIXELS = 89_478_485
"""Pillow's own limit; a quarter of a GiB as RGB."""

SIXTEEN_BIT_MODES = frozenset(("I", "I;16", "I;16B", "I;16L", "I;16N"))

_opening = threading.Lock()


def decode(stream: BinaryIO, name: str) -> "Image":
    """Read one image, upright and in RGB.

    Args:
        stream: the encoded file.
        name: how to call it in an error.

    Raises:
        DataError: it is not an image, is damaged or truncated, or has more than `MAX_PIXELS` pixels.
    """
    try:
        image = _open(stream, name)
        image.load()
        return to_rgb(_upright(image))
    except DataError:
        raise
    except Exception as exc:  # Pillow's decoders raise nearly anything on damaged input, struct.error and IndexError too
        raise DataError(f"{name}: cannot be decoded: {_reason(exc)}", "replace or remove the image") from exc


def _open(stream: BinaryIO, name: str) -> "Image":
    from PIL import Image

    # Pillow warns above its limit and raises at twice that. The lock is because warnings' state is global.
    try:
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(stream, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise _too_large(name) from exc
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name)
    return image


def _too_large(name: str) -> DataError:
    return DataError(f"{name}: has more than {MAX_PIXELS} pixels", "make the image smaller, or remove it")


def _reason(exc: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(exc, UnidentifiedImageError):  # its own text is the address of the stream object
        return f"not an image in any of {', '.join(FORMATS)}"
    return " ".join(str(exc).split()) or type(exc).__name__


def _upright(image: "Image") -> "Image":
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF: the pixels are fine, and every other reader shows them as they lie
        return image


def to_rgb(image: "Image") -> "Image":
    """Return the image in mode RGB: 16-bit gray scaled to 8 bits, alpha dropped, palettes and CMYK converted.

    Raises:
        ValueError: floating point or 32-bit integer pixels, which have no defined range.
    """
    if image.mode == "RGB":
        return image
    if image.mode in SIXTEEN_BIT_MODES:
        return _from_sixteen_bit(image).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating point pixels have no defined range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB gives the same colours, but Pillow warns
    return image.convert("RGB")


def _from_sixteen_bit(image: "Image") -> "Image":
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("32-bit integer pixels have no defined range")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 / 255 = 257, rounded


def preprocess(image: "Image", preprocessing: Preprocessing, name: str = "image") -> Float32Array:
    """Return the network's input of one image: (3, S, S) float32, S being `preprocessing.image_size`.

    The short side is resized to `resize_size` (bilinear, antialiased), the centre cropped to `image_size` (padded with black
    where the image is smaller), divided by 255 and normalised.

    Args:
        image: a Pillow image of any mode that `to_rgb` takes.
        preprocessing: the sizes and the normalisation.
        name: how to call the image in an error.

    Raises:
        DataError: the image is so narrow that resizing its short side would make more than `MAX_PIXELS` pixels.
    """
    cropped = _centre_crop(_resize_short_side(to_rgb(image), preprocessing.resize_size, name), preprocessing.image_size)
    pixels = np.asarray(cropped).transpose(2, 0, 1).astype(np.float32, order="C")
    pixels /= np.float32(255)
    pixels -= np.array(preprocessing.mean, np.float32)[:, None, None]
    pixels /= np.array(preprocessing.std, np.float32)[:, None, None]
    return pixels


def _resize_short_side(image: "Image", size: int, name: str) -> "Image":
    from PIL import Image

    width, height = image.size
    long = int(size * max(width, height) / min(width, height))  # torchvision truncates too
    if long * size > MAX_PIXELS:
        raise DataError(
            f"{name}: {width}x{height} is too narrow: resized to {size} it has over {MAX_PIXELS} pixels", "crop or remove it"
        )
    return image.resize((size, long) if width <= height else (long, size), Image.Resampling.BILINEAR)


def _centre_crop(image: "Image", size: int) -> "Image":
    from PIL import ImageOps

    width, height = image.size
    missing_x, missing_y = max(size - width, 0), max(size - height, 0)
    if missing_x or missing_y:
        border = (missing_x // 2, missing_y // 2, (missing_x + 1) // 2, (missing_y + 1) // 2)
        image = ImageOps.expand(image, border)
        width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)  # half to even, as torchvision
    return image.crop((left, top, left + size, top + size))
