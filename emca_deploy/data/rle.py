"""Binary masks as COCO's run lengths: counts of pixels in column-major order, first of zeros, and their compressed text."""

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Int64Array

__all__ = ["compress", "counts_of_crop", "decompress"]

MOST_GROUPS = 7
"""Groups of 5 bits of the longest count: 35 bits."""

FIRST_CHARACTER = 48
BITS, VALUE, SIGN, MORE = 5, 0x1F, 0x10, 0x20


def counts_of_crop(crop: npt.NDArray[np.bool_], top: int, left: int, size: tuple[int, int]) -> Int64Array:
    """Return the run lengths of a mask that is zero outside a crop.

    Args:
        crop: The part of the mask within the image, (h, w) bool; it may be empty.
        top: First row of the crop in the image.
        left: First column of the crop in the image.
        size: (height, width) of the image in pixels.
    """
    height, width = size
    padded = np.zeros((crop.shape[1], crop.shape[0] + 2), np.int8)
    padded[:, 1:-1] = crop.T
    column, row = np.nonzero(np.diff(padded, axis=1))
    edges = (left + column) * height + top + row
    starts, ends = edges[::2], edges[1::2]
    joined = np.zeros(len(starts), np.bool_)
    joined[1:] = starts[1:] == ends[:-1]  # a run that goes on from the bottom of one column to the top of the next
    last = np.append(~joined[1:], True)[: len(ends)]
    edges = np.stack([starts[~joined], ends[last]], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [height * width]])).astype(np.int64)
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts


def compress(counts: Int64Array) -> bytes:
    """Return run lengths as COCO's text: differences to the last but one count, in groups of 5 bits with a sign."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    shifts = BITS * np.arange(MOST_GROUPS)
    groups = (values[:, None] >> shifts) & VALUE
    rest = values[:, None] >> (shifts + BITS)
    more = np.where(groups & SIGN, rest != -1, rest != 0)
    used = np.ones(groups.shape, np.bool_)
    used[:, 1:] = np.logical_and.accumulate(more, axis=1)[:, :-1]
    return bytes((groups + np.where(more, MORE, 0) + FIRST_CHARACTER)[used].astype(np.uint8))


def decompress(text: bytes) -> Int64Array:
    """Return the run lengths in COCO's text.

    Raises:
        ValueError: the text is cut short, or has a character or a count that is out of range.
    """
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - FIRST_CHARACTER
    if not len(codes):
        return np.zeros(0, np.int64)
    if codes.min() < 0 or codes.max() >= 2 * MORE or codes[-1] & MORE:
        raise ValueError("its run lengths are damaged")
    ends = np.flatnonzero(codes & MORE == 0)
    starts = np.append(0, ends[:-1] + 1)
    if (ends - starts).max() >= MOST_GROUPS:
        raise ValueError("its run lengths are too long")
    place = BITS * (np.arange(len(codes)) - np.repeat(starts, ends - starts + 1))
    values = np.add.reduceat((codes & VALUE) << place, starts)
    values -= np.where(codes[ends] & SIGN, 1 << (place[ends] + BITS), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0:
        raise ValueError("it has a negative run length")
    return values
