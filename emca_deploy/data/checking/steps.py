"""Preprocessing in single steps, each of which can be done in another way than the model needs."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array, Float64Array
from emca_deploy.data.preprocess import Rounding, to_pixels, upright
from emca_deploy.preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Geometry", "Steps", "Values"]


@dataclass(frozen=True)
class Geometry:
    """How an image gets the size of the input.

    Attributes:
        used: a preprocessing in RGB or gray; what it does to values is left out.
        rounding: how it rounds sizes and places.
    """

    used: Preprocessing
    rounding: Rounding = field(default_factory=Rounding)

    @classmethod
    def of(cls, used: Preprocessing) -> "Geometry":
        """Return the geometry of a preprocessing."""
        if used.channels != "bgr":
            return cls(used)
        return cls(replace(used, channels="rgb", mean=used.mean[::-1], std=used.std[::-1]))

    def pixels(self, image: "Image") -> npt.NDArray[np.float32]:
        """Return an image as it is in its file at the size of the input, (height, width, channels) of 0 to 255 in RGB or gray."""
        found = to_pixels(upright(image, self.used.exif), self.used, rounding=self.rounding)
        return np.asarray(found.transpose(1, 2, 0))


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
