"""One image in the form of a network's input."""

from emca_deploy.arrays import Float32Array
from emca_deploy.data.preprocess import normalize, to_pixels
from emca_deploy.preprocessing import Preprocessing


def preprocess(image, preprocessing: Preprocessing, name: str = "image") -> Float32Array:
    """Return the network's input, (channels, height, width) float32, from a Pillow image."""
    return normalize(to_pixels(image, preprocessing, name), preprocessing)
