"""The record of one kind of corruption, and how it is applied to an image of 8 bits."""

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.data.corruptions.filters import to_image

__all__ = ["STRENGTHS", "Corruption"]

STRENGTHS = (1, 2, 3, 4, 5)
"""Strengths of every kind, the weakest first."""

Apply = Callable[[Float32Array, tuple[float, ...], np.random.Generator], Float32Array]
"""Corrupts an image (height, width, 3) float32 of 0 to 1 with the parameters of a strength; the result may leave 0 to 1."""


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes:
        name: Name, as an option has it.
        group: "noise", "blur", "weather" and "digital" are ImageNet-C's; "camera" has the effects of a device's camera.
        apply: Function; its docstring has the formula.
        parameters: Parameters of each of `STRENGTHS`, for images of 224 pixels; see `filters.scale_of`.
    """

    name: str
    group: str
    apply: Apply
    parameters: tuple[tuple[float, ...], ...]

    def corrupted(self, image: npt.NDArray[np.uint8], strength: int, index: int, seed: int = 0) -> npt.NDArray[np.uint8]:
        """Return a corrupted copy of an RGB image (height, width, 3) uint8.

        Random numbers depend on the seed, the kind and the image's index in its data set only: all strengths share them, so a
        stronger one shows more of the same snow.
        """
        random = np.random.default_rng((seed, crc32(self.name.encode()), index))
        values = self.apply(image.astype(np.float32) / np.float32(255), self.parameters[strength - 1], random)
        return to_image(values)
