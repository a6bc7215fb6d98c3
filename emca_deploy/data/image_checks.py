"""Checks of images: whether calibration images show enough, and whether they are among those to validate on."""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np

from emca_deploy.data.sources import ImageSource

__all__ = ["calibration_warnings", "image_digests", "overlap_warnings", "shared_images"]

FEWEST = 8
"""With fewer calibration images, the next image is likely to exceed the ranges."""

LOOKED_AT = 64
"""Number of images that are decoded to see whether they differ."""

MOST_DIGESTS = 4096
"""Digests per data set. Of more the smallest are kept, with which an overlap is still found."""


def image_digests(source: ImageSource, indices: Sequence[int]) -> list[str]:
    """Return a digest of each image, sorted: its size in bytes and the first 64 bits of its sha256, both in hex.

    Raises:
        DataError: an image cannot be read.
    """
    return sorted({_digest(source, index) for index in indices})[:MOST_DIGESTS]


def shared_images(source: ImageSource, indices: Sequence[int], known: Collection[str]) -> int:
    """Return how many images have one of the `known` digests; only images of a known size are read.

    Raises:
        DataError: an image cannot be read.
    """
    digests = frozenset(known)
    sizes = {digest.partition("-")[0] for digest in digests}
    return sum(f"{source.size(index):x}" in sizes and _digest(source, index) in digests for index in indices)


def overlap_warnings(source: ImageSource, indices: Sequence[int], calibrated: Collection[str]) -> tuple[str, ...]:
    """Return a warning where images were used for calibration, by their digests from `image_digests`.

    Raises:
        DataError: an image cannot be read.
    """
    shared = shared_images(source, indices, calibrated) if calibrated else 0
    if not shared:
        return ()
    return (
        f"{shared:,} of {len(indices):,} images were used for calibration, so the drop on new images may be larger: "
        "validate on other images",
    )


def _digest(source: ImageSource, index: int) -> str:
    content = source.content(index)
    return f"{len(content):x}-{hashlib.sha256(content).hexdigest()[:16]}"


def calibration_warnings(source: ImageSource, indices: Sequence[int]) -> tuple[str, ...]:
    """Return a warning where calibration images show too little of a network's ranges: too few, all alike, or of one colour.

    Raises:
        DataError: an image cannot be read.
    """
    count = len(indices)
    if count < FEWEST:
        return (f"{count} calibration image{'s are' if count > 1 else ' is'} too few to measure ranges; give some hundred",)
    step = max(1, count // LOOKED_AT)
    images = [source.load(index) for index in list(indices)[::step][:LOOKED_AT]]
    flat = sum(bool((np.ptp(image, axis=(1, 2)) == 0).all()) for image in images)
    if all(np.array_equal(image, images[0]) for image in images[1:]):
        kind = "black, or all of one colour" if flat == len(images) else "all alike"
        return (f"the calibration images are {kind}: their ranges are useless for other images; give different ones",)
    if 2 * flat > len(images):
        return (
            f"{flat} of {len(images)} calibration images have one colour only; give images like those that the network will see",
        )
    return ()
