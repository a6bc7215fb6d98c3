"""Digital corruptions of ImageNet-C; see `noise` for the letters."""

import io

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.data.corruptions.filters import enlarged, moved, scale_of, to_image

__all__ = ["contrast", "elastic", "encoded", "jpeg", "pixelate", "shrunk"]

_WAVES = 12
"""Independent displacements along a side of an elastic image."""


def contrast(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return m + c (x - m), m the mean of each channel."""
    del random
    mean = image.mean(axis=(0, 1), keepdims=True)
    return np.asarray(mean + np.float32(parameters[0]) * (image - mean), np.float32)


def elastic(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x whose pixels are moved by a smooth random field with a deviation of c sides.

    The field is a normal random grid of 12 x 12 points, enlarged. The authors add an affine map at some strengths; without it,
    the strengths are in order.
    """
    height, width = image.shape[:2]
    down, right = (enlarged(random.standard_normal((_WAVES, _WAVES)), (height, width)) for _ in range(2))
    return moved(image, np.float32(parameters[0] * height) * down, np.float32(parameters[0] * width) * right)


def pixelate(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x shrunk by averaging blocks of 1 + (1 / c - 1) s pixels a side, and enlarged to squares again."""
    from PIL import Image

    del random
    return shrunk(image, 1 + (1 / parameters[0] - 1) * scale_of(image), Image.Resampling.BOX, Image.Resampling.NEAREST)


def jpeg(image: Float32Array, parameters: tuple[float, ...], random: np.random.Generator) -> Float32Array:
    """Return x after JPEG compression with steps s times as coarse as those of quality c.

    libjpeg multiplies its steps by f = 50 / c for a quality c below 50, and by f = 2 - c / 50 above.
    """
    del random
    factor = scale_of(image) * _coarseness(parameters[0])
    return encoded(image, round(50 / factor if factor > 1 else 100 - 50 * factor))


def encoded(image: Float32Array, quality: int) -> Float32Array:
    """Return an image after JPEG compression with a quality, clipped to 1 to 100."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(to_image(image)).save(stream, "JPEG", quality=min(max(quality, 1), 100))
    return _values(np.asarray(Image.open(stream)))


def shrunk(image: Float32Array, block: float, down: int, up: int) -> Float32Array:
    """Return an image shrunk by `block` with the filter `down`, and enlarged to its size with `up`; filters are Pillow's."""
    from PIL import Image

    shown = Image.fromarray(to_image(image))
    size = max(1, round(shown.width / block)), max(1, round(shown.height / block))
    small = shown.resize(size, Image.Resampling(down))
    return _values(np.asarray(small.resize(shown.size, Image.Resampling(up))))


def _values(image: npt.NDArray[np.uint8]) -> Float32Array:
    return image.astype(np.float32) / np.float32(255)


def _coarseness(quality: float) -> float:
    return 50 / quality if quality < 50 else 2 - quality / 50
