"""Streaming histograms that do not depend on how the values arrive, by batch, order or thread. Pure numpy.

Bins are a power of two wide and start at zero. When a value lies beyond the last bin, the width doubles and neighbouring bins
merge. Every count stays exact, and the histogram of all values is the same in whichever order it was merged.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from emca_deploy.arrays import Float32Array, Float64Array, Int64Array

__all__ = ["BINS", "Histogram"]

BINS = 4096
"""Bins on each side of zero; the largest magnitude lies in their upper half."""

CHUNK = 1 << 16
"""Values binned at once, whose scratch memory stays in the cache."""

COMPRESSION = 4
"""zlib's level; 9 takes fifty times as long for a file two percent smaller."""

SMALLEST_EXPONENT = -120
"""Smallest exponent of a bin's width: its inverse 2**120 is still a single-precision number."""


@dataclass(frozen=True)
class Histogram:
    """Counts of values, or of an even sample of them, by bins of width 2**exponent.

    Bin i > 0 holds [i, i + 1) widths, bin i < 0 its mirror image, and bin 0 everything between minus and plus one width.

    Attributes:
        counts: counts of bins -(BINS - 1) to BINS - 1, int64 (2 * BINS - 1,).
        minimum: exact smallest value.
        maximum: exact largest value.
    """

    exponent: int
    counts: Int64Array
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Float32Array, step: int = 1) -> "Histogram":
        """Count every `step`th of float32 values of any shape; the smallest and largest are of all values.

        Raises:
            ValueError: there are no values, or one is infinite or not a number.
        """
        flat = values.reshape(-1)
        if not flat.size:
            raise ValueError("nothing was observed")
        low, high = float(flat.min()), float(flat.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"range [{low}, {high}] is not finite")
        exponent = _exponent(max(-low, high))
        flat = flat[::step]
        counts = np.zeros(2 * BINS - 1, np.int64)
        if low >= 0:
            counts[BINS - 1 :] = _count(flat, exponent, 0, BINS)
        else:
            counts += _count(flat, exponent, BINS - 1, 2 * BINS - 1)
        return cls(exponent, counts, low, high)

    def merged(self, other: "Histogram") -> "Histogram":
        """Return the histogram of both histograms' values."""
        exponent = max(self.exponent, other.exponent)
        counts = self.widened(exponent) + other.widened(exponent)
        return Histogram(exponent, counts, min(self.minimum, other.minimum), max(self.maximum, other.maximum))

    def widened(self, exponent: int) -> Int64Array:
        """Return the counts by bins of width 2**exponent, which is not smaller than the own width."""
        steps = exponent - self.exponent
        if steps == 0:
            return self.counts
        # Truncation toward zero commutes with halving: bin i goes exactly to i / 2 without its fraction.
        upper = self.counts[BINS - 1 :]
        lower = self.counts[BINS - 1 :: -1].copy()  # bins 0, -1, -2, ...
        lower[0] = 0
        for _ in range(min(steps, BINS.bit_length() - 1)):
            upper, lower = upper[::2] + upper[1::2], lower[::2] + lower[1::2]
        widened = np.zeros_like(self.counts)
        widened[BINS - 1 : BINS - 1 + len(upper)] = upper
        widened[BINS - len(lower) : BINS] += lower[::-1]
        return widened

    @property
    def width(self) -> float:
        """The width of a bin."""
        return float(2.0**self.exponent)

    @property
    def count(self) -> int:
        """Number of counted values."""
        return int(self.counts.sum())

    def centres(self) -> Float64Array:
        """Return the middle of every bin, clipped to the values' range; float64, (2 * BINS - 1,)."""
        bins = np.arange(1 - BINS, BINS)
        return np.clip((bins + np.sign(bins) * 0.5) * self.width, self.minimum, self.maximum)

    def magnitudes(self) -> Int64Array:
        """Return the counts of absolute values, int64, (BINS,)."""
        folded = self.counts[BINS - 1 :].copy()
        folded[1:] += self.counts[: BINS - 1][::-1]
        return folded

    def quantile(self, share: float) -> float:
        """Return a value that `share` of all values do not exceed, within one width of the exact one.

        It is the upper edge of the bin of the value of that rank, clipped to the values' range.
        """
        if share >= 1:  # the largest value may not be in a sample
            return self.maximum
        position = int(np.searchsorted(np.cumsum(self.counts), _rank(share, self.count)))
        edge = position - (BINS - 1) + (1 if position >= BINS - 1 else 0)
        return float(np.clip(edge * self.width, self.minimum, self.maximum))

    def magnitude_quantile(self, share: float) -> float:
        """Return a magnitude that `share` of all values do not exceed, within one width of the exact one."""
        if share >= 1:
            return max(-self.minimum, self.maximum)
        position = int(np.searchsorted(np.cumsum(self.magnitudes()), _rank(share, self.count)))
        return float(min((position + 1) * self.width, max(-self.minimum, self.maximum)))

    def summary(self, shares: Sequence[float]) -> dict[str, Any]:
        """Return count, near_zero (values within one width of zero), mean, std and quantiles for a reader; approximate."""
        centres, weights = self.centres(), self.counts / self.count
        mean = float(centres @ weights)
        return {
            "count": self.count,
            "near_zero": int(self.counts[BINS - 1]),
            "mean": mean,
            "std": float(np.sqrt(((centres - mean) ** 2) @ weights)),
            "quantiles": {str(share): self.quantile(share) for share in shares},
        }

    @cached_property  # a table is written again where another method is chosen
    def packed(self) -> dict[str, Any]:
        """The histogram as JSON values, with the counts from the first to the last that is not zero, compressed."""
        filled = np.flatnonzero(self.counts)
        first, last = int(filled[0]), int(filled[-1])
        content = zlib.compress(self.counts[first : last + 1].astype("<u8").tobytes(), COMPRESSION)
        return {"exponent": self.exponent, "first": first - (BINS - 1), "counts": base64.b64encode(content).decode("ascii")}

    @classmethod
    def unpacked(cls, values: dict[str, Any], minimum: float, maximum: float) -> "Histogram":
        """Return the histogram of a `packed` form.

        Raises:
            ValueError, KeyError, TypeError: the form is damaged.
        """
        limit = 8 * (2 * BINS - 1)
        inflater = zlib.decompressobj()
        try:
            content = inflater.decompress(base64.b64decode(values["counts"], validate=True), limit)
        except zlib.error as exc:
            raise ValueError(f"a histogram does not decompress: {exc}") from exc
        stored = np.frombuffer(content, "<u8").astype(np.int64)
        start, exponent = int(values["first"]) + BINS - 1, int(values["exponent"])
        inside = start >= 0 and start + len(stored) <= 2 * BINS - 1 and len(stored) > 0 and inflater.eof
        if not inside or stored.min() < 0 or stored.sum() <= 0 or not SMALLEST_EXPONENT <= exponent <= 128:
            raise ValueError("a histogram's bins are out of range")
        counts = np.zeros(2 * BINS - 1, np.int64)
        counts[start : start + len(stored)] = stored
        return cls(exponent, counts, minimum, maximum)


def _exponent(magnitude: float) -> int:
    """Return the exponent of the smallest width whose bins reach a magnitude."""
    if magnitude == 0:
        return SMALLEST_EXPONENT
    return max(int(np.frexp(magnitude)[1]) - (BINS.bit_length() - 1), SMALLEST_EXPONENT)


def _count(flat: Float32Array, exponent: int, offset: int, length: int) -> Int64Array:
    """Count values / width, truncated, plus an offset. Scaling by a power of two is exact, and so are the bins' edges."""
    inverse = np.float32(2.0**-exponent)
    scratch = np.empty(min(CHUNK, flat.size), np.int32)
    counts = np.zeros(length, np.int64)
    for start in range(0, flat.size, CHUNK):
        piece = flat[start : start + CHUNK]
        bins = scratch[: piece.size]
        np.multiply(piece, inverse, out=bins, casting="unsafe")
        if offset:
            bins += offset
        counts += np.bincount(bins, minlength=length)
    return counts


def _rank(share: float, count: int) -> int:
    return min(max(int(np.ceil(share * count)), 1), count)
