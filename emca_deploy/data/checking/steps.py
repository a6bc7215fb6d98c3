"""Preprocessing in single steps, each of which can be done in another way than the model needs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array, Float64Array
from emca_deploy.data.preprocess import resized, to_rgb, upright
from emca_deploy.preprocessing import Preprocessing, Size, sides

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Geometry", "Steps", "Values"]


@dataclass(frozen=True)
class Geometry:
    """How an image gets the size of the input; the first fields are as in `Preprocessing`.

    Attributes:
        crop: how the first row and column of the centre crop are rounded: "even" (half to even), "floor" or "ceil".
        long_side: how the longer side is rounded after "shortest": "floor" or "round".
    """

    image_size: Size
    resize_size: Size
    resize: str
    interpolation: str
    pad: str
    filling: tuple[float, ...]
    exif: str
    gray: bool
    crop: str = "even"
    long_side: str = "floor"

    @classmethod
    def of(cls, used: Preprocessing) -> "Geometry":
        """Return the geometry of a preprocessing."""
        filling = used.filling[::-1] if used.channels == "bgr" else used.filling
        gray = used.channels == "gray"
        return cls(used.image_size, used.resize_size, used.resize, used.interpolation, used.pad, filling, used.exif, gray)

    def pixels(self, image: "Image") -> npt.NDArray[np.float32]:
        """Return an image as it is in its file at the size of the input, (height, width, channels) of 0 to 255 in RGB or gray."""
        image = to_rgb(upright(image, self.exif))
        if self.gray:
            image = image.convert("L")
        size = self._size(image.height, image.width)
        values = np.atleast_3d(np.asarray(image if self.resize == "none" else resized(image, size, self.interpolation)))
        wanted = sides(self.image_size)
        found = np.empty((*wanted, values.shape[2]), np.float32)
        found[:] = self.filling
        at_end = self.resize == "letterbox" and self.pad == "end"
        (rows, tall), (columns, wide) = (_span(*pair, at_end, self.crop) for pair in zip(values.shape, wanted, strict=False))
        found[tall, wide] = values[rows, columns]
        return found

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if self.resize == "squash":
            return sides(self.resize_size)
        if self.resize == "letterbox":
            wanted = sides(self.image_size)
            ratio = min(wanted[0] / height, wanted[1] / width)
            return max(1, round(height * ratio)), max(1, round(width * ratio))
        if isinstance(self.resize_size, int):
            exact = self.resize_size * max(height, width) / min(height, width)
            long = int(exact) if self.long_side == "floor" else round(exact)
            return (self.resize_size, long) if height <= width else (long, self.resize_size)
        tall, wide = self.resize_size
        ratio = min(height / tall, width / wide)
        return round(height / ratio), round(width / ratio)


def _span(have: int, want: int, at_end: bool, rounding: str) -> tuple[slice, slice]:
    """Return which of `have` pixels are kept, and their place among `want` pixels."""
    if have > want:
        twice = have - want
        start = {"even": round(twice / 2), "floor": twice // 2, "ceil": (twice + 1) // 2}[rounding]
        return slice(start, start + want), slice(0, want)
    start = 0 if at_end else (want - have) // 2
    return slice(0, have), slice(start, start + have)


@dataclass(frozen=True)
class Values:
    """How pixels become the numbers of the input: (value / scale - mean) / std, per channel.

    Attributes:
        reversed: Whether the channels are in the order blue, green, red.
        scale: Divisor of pixel values.
        mean: Mean of each channel, after `scale`.
        std: Standard deviation of each channel, after `scale`.
        interleaved: Whether the numbers lie in memory as (height, width, channels), whatever shape the array has.
    """

    reversed: bool
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interleaved: bool

    @classmethod
    def of(cls, used: Preprocessing, *, interleaved: bool) -> "Values":
        """Return the values of a preprocessing."""
        return cls(used.channels == "bgr", float(used.scale), used.mean, used.std, interleaved)

    @property
    def step(self) -> Float64Array:
        """What one of 255 steps of a pixel makes in each channel of the input."""
        return np.asarray(1 / (self.scale * np.array(self.std, np.float64)))

    def numbers(self, pixels: Float32Array) -> Float64Array:
        """Return the numbers of pixels (height, width, channels), in the same shape."""
        ordered = pixels[:, :, ::-1] if self.reversed else pixels
        return np.asarray((ordered / self.scale - np.array(self.mean)) / np.array(self.std))


@dataclass(frozen=True)
class Steps:
    """All of a preprocessing."""

    geometry: Geometry
    values: Values

    @classmethod
    def of(cls, used: Preprocessing, *, interleaved: bool = False) -> "Steps":
        """Return the steps of a model's preprocessing; `interleaved` for an input (N, H, W, C)."""
        return cls(Geometry.of(used), Values.of(used, interleaved=interleaved))

    def tensor(self, image: "Image", right: "Steps", dtype: str) -> Any:
        """Return the input of a model that needs the steps `right`, (1, C, H, W) or (1, H, W, C) of `dtype`.

        Numbers that lie in memory in the other layout are read as the model reads them.
        """
        numbers = self.values.numbers(self.geometry.pixels(image))
        laid = np.ascontiguousarray(numbers if self.values.interleaved else numbers.transpose(2, 0, 1))
        if dtype == "uint8":
            laid = np.clip(np.round(laid), 0, 255)
        tall, wide, channels = numbers.shape
        shape = (1, tall, wide, channels) if right.values.interleaved else (1, channels, tall, wide)
        return laid.reshape(shape).astype(dtype)
