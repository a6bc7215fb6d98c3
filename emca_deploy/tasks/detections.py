"""Detections of a network in the pixels of its images: compact records, image by image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array, Float64Array, Int64Array

__all__ = ["Detections", "box_iou"]

PREFIX = "detections."
"""Beginning of the names of arrays, which tells them from others in a file."""


@dataclass(frozen=True)
class Detections:
    """Detections of N images, M in all; those of an image follow each other, with falling scores.

    Attributes:
        counts: Number of detections of each image, (N,) int64.
        boxes: x1, y1, x2, y2 in pixels of the image, (M, 4) float32.
        scores: Scores from 0 to 1, (M,) float32.
        labels: Outputs of the network, 0 for its first class, (M,) int64.
        mask_text: Compressed run lengths of all masks, one after the other, (bytes,) uint8; None for boxes only.
        mask_lengths: Bytes of each mask, (M,) int64; None for boxes only.
    """

    counts: Int64Array
    boxes: Float32Array
    scores: Float32Array
    labels: Int64Array
    mask_text: npt.NDArray[np.uint8] | None = None
    mask_lengths: Int64Array | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.counts)

    @classmethod
    def joined(cls, parts: "Sequence[Detections]") -> "Detections":
        """Return the detections of several parts as one record; the parts are not empty, and all or none have masks."""
        values = [part.arrays() for part in parts]
        return cls.from_arrays({name: np.concatenate([value[name] for value in values]) for name in values[0]})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "Detections":
        """Return the record of `arrays`.

        Raises:
            ValueError: the arrays do not fit together.
            KeyError: an array is missing.
        """
        kinds: dict[str, Any] = {"counts": np.int64, "boxes": np.float32, "scores": np.float32, "labels": np.int64}
        if f"{PREFIX}mask_text" in arrays:
            kinds |= {"mask_text": np.uint8, "mask_lengths": np.int64}
        found = cls(**{name: np.asarray(arrays[PREFIX + name], kind) for name, kind in kinds.items()})
        count = int(found.counts.sum())
        fits = found.boxes.shape == (count, 4) and found.scores.shape == found.labels.shape == (count,)
        if found.mask_text is not None and found.mask_lengths is not None:
            fits &= found.mask_lengths.shape == (count,) and int(found.mask_lengths.sum()) == len(found.mask_text)
        if not fits or found.counts.ndim != 1 or min(found.counts, default=0) < 0:
            raise ValueError("its arrays do not fit together")
        return found

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by name; `from_arrays` is the inverse."""
        names = ("counts", "boxes", "scores", "labels", "mask_text", "mask_lengths")
        return {PREFIX + name: value for name in names if (value := getattr(self, name)) is not None}

    def rows(self) -> Iterator[slice]:
        """Yield the detections of each image."""
        ends = np.cumsum(self.counts)
        return (slice(int(end - count), int(end)) for end, count in zip(ends, self.counts, strict=True))

    def mask_texts(self) -> list[bytes]:
        """Return the compressed run lengths of every mask; there must be masks."""
        assert self.mask_text is not None
        assert self.mask_lengths is not None
        text, ends = self.mask_text.tobytes(), np.cumsum(self.mask_lengths)
        return [text[end - length : end] for end, length in zip(ends.tolist(), self.mask_lengths.tolist(), strict=True)]


def box_iou(first: npt.NDArray[np.floating[Any]], second: npt.NDArray[np.floating[Any]]) -> Float64Array:
    """Return the intersection of boxes (n, 4) and (m, 4) over their union, (n, m) float64; boxes are x1, y1, x2, y2."""
    one, other = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    inside = np.prod(np.clip(sides, 0, None), axis=-1)
    areas = np.prod(one[..., 2:] - one[..., :2], axis=-1) + np.prod(other[..., 2:] - other[..., :2], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(inside > 0, inside / (areas - inside), 0.0)
