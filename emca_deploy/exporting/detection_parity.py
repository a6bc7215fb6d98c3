"""Compares an exported detector with its torch module: dense outputs by their error, detections one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.errors import GateError
from emca_deploy.exporting.parity import Parity, measure_parity

__all__ = [
    "DENSE_TOLERANCE",
    "DetectionParity",
    "MatchedDetections",
    "Tolerances",
    "check_dense",
    "check_detections",
    "match_detections",
    "measure_dense",
]

Outputs = Mapping[str, npt.NDArray[Any]]

REMEDY = "check the checkpoint for huge or invalid weights; if it is sound, report the architecture and versions"
DENSE_TOLERANCE = 1e-4
"""Largest error of a dense output, relative to its largest value: sums of twice as many layers as a classifier has."""


@dataclass(frozen=True)
class Tolerances:
    """Largest differences of two detections that are the same one.

    Attributes:
        score: Difference of the scores.
        box_px: Difference of a coordinate, in pixels of the input.
        mask: Difference of a pixel of the masks, which are probabilities.
    """

    score: float = 1e-4
    box_px: float = 0.05
    mask: float = 1e-3


SAME_FILE = Tolerances()
"""Tolerances of a file in the precision of its reference."""


@dataclass(frozen=True)
class MatchedDetections:
    """Detections of a reference that a candidate has too.

    Attributes:
        images: Number of images.
        detections: Number of the reference's detections, and of the candidate's that the reference should have.
        matched: Number of these with a detection of the candidate of the same class within all tolerances. A detection at the
            end of either list, or at the score threshold, needs no match: rounding decides whether it is there.
        score_error: Largest difference of two matched scores.
        box_error_px: Largest difference of a coordinate of two matched boxes, in pixels of the input.
        mask_error: Largest difference of a pixel of two matched masks; None without masks.
    """

    images: int
    detections: int
    matched: int
    score_error: float
    box_error_px: float
    mask_error: float | None = None


@dataclass(frozen=True)
class DetectionParity(Parity):
    """The difference between a detector in PyTorch and its file.

    The figures of `Parity` are those of the dense output that differs most.

    Attributes:
        found: Detections of all images; None where only the dense part was exported. Dense outputs are those of fewer images.
    """

    found: MatchedDetections | None = None


def match_detections(
    reference: Outputs, candidate: Outputs, threshold: float, allowed: Tolerances = SAME_FILE
) -> MatchedDetections:
    """Match each detection of a reference with one of a candidate, on the same images.

    Args:
        reference: Outputs num_detections (N,), boxes (N, D, 4), scores (N, D), labels (N, D), and masks (N, D, M, M) or none.
        candidate: The same outputs of the other one.
        threshold: Score that a detection must exceed.
        allowed: Largest differences of two detections.
    """
    count = len(reference["num_detections"])
    images = [_match_image(reference, candidate, image, threshold, allowed) for image in range(count)]
    masks = [one.mask_error for one in images if one.mask_error is not None]
    return MatchedDetections(
        images=len(images),
        detections=sum(one.detections for one in images),
        matched=sum(one.matched for one in images),
        score_error=max((one.score_error for one in images), default=0.0),
        box_error_px=max((one.box_error_px for one in images), default=0.0),
        mask_error=max(masks, default=0.0) if "masks" in reference else None,
    )


def _match_image(reference: Outputs, candidate: Outputs, image: int, threshold: float, allowed: Tolerances) -> MatchedDetections:
    ours = {name: array[image, : int(reference["num_detections"][image])] for name, array in _rows(reference).items()}
    theirs = {name: array[image, : int(candidate["num_detections"][image])] for name, array in _rows(candidate).items()}
    most = reference["scores"].shape[1]
    full = [rows["scores"].min() for rows in (ours, theirs) if len(rows["scores"]) == most]
    edge = max([threshold, *full]) + allowed.score
    free = np.ones(len(theirs["scores"]), np.bool_)
    errors: list[tuple[float, float, float]] = []
    matched = 0
    for row in range(len(ours["scores"])):
        error = _errors(ours, theirs, row)
        fits = free & np.all(error <= [allowed.score, allowed.box_px, allowed.mask], axis=1)
        if fits.any():
            chosen = int(np.argmin(np.where(fits, error[:, 1], np.inf)))
            free[chosen] = False
            errors.append(tuple(error[chosen].tolist()))
        matched += bool(fits.any()) or bool(ours["scores"][row] <= edge)
    extra = int((theirs["scores"][free] > edge).sum())
    worst = np.max(errors, axis=0) if errors else np.zeros(3)
    count = len(ours["scores"])
    mask_error = float(worst[2]) if "masks" in ours else None
    return MatchedDetections(1, count + extra, matched, float(worst[0]), float(worst[1]), mask_error)


def _rows(outputs: Outputs) -> dict[str, npt.NDArray[Any]]:
    return {name: outputs[name] for name in ("boxes", "scores", "labels", "masks") if name in outputs}


def _errors(ours: Outputs, theirs: Outputs, row: int) -> npt.NDArray[np.float64]:
    """Return the errors of score, box and mask of each of the candidate's detections, (n, 3); infinite for another class."""
    score = np.abs(theirs["scores"] - ours["scores"][row])
    box = np.abs(theirs["boxes"] - ours["boxes"][row]).max(axis=1, initial=0.0)
    mask = np.abs(theirs["masks"] - ours["masks"][row]).max(axis=(1, 2), initial=0.0) if "masks" in ours else np.zeros(len(score))
    result = np.stack([score, box, mask], axis=1).astype(np.float64)
    result[theirs["labels"] != ours["labels"][row]] = np.inf
    return result


def check_dense(reference: Outputs, candidate: Outputs, names: Sequence[str]) -> DetectionParity:
    """Compare dense outputs (N, ...) float32 by name, and refuse an error above the tolerance.

    Raises:
        GateError: an output differs, or the reference's own outputs are not finite.
    """
    if not all(np.isfinite(array).all() for array in reference.values()):
        raise GateError(
            "the network's own outputs in PyTorch are infinite or NaN, and the export cannot be compared with them",
            "use weights that give finite outputs: an earlier checkpoint, or the other of --weights ema and --weights plain",
        )
    worst, parity = measure_dense(reference, candidate, names)
    if not parity.max_rel <= DENSE_TOLERANCE:  # also true of NaN
        raise GateError(
            f"the exported output {worst} differs from PyTorch's by {parity.max_rel:.2g} of its largest value", REMEDY
        )
    return DetectionParity(parity.max_abs, parity.max_rel, parity.cosine, parity.samples)


def measure_dense(reference: Outputs, candidate: Outputs, names: Sequence[str]) -> tuple[str, Parity]:
    """Return the name and the parity of the dense output (N, ...) that differs most; NaN counts as the most."""
    errors = {name: measure_parity(_flat(reference[name]), _flat(candidate[name])) for name in names}
    worst = max(errors, key=lambda name: np.nan_to_num(errors[name].max_rel, nan=np.inf))
    return worst, errors[worst]


def _flat(array: Float32Array) -> Float32Array:
    return array.reshape(len(array), -1)


def check_detections(reference: Outputs, candidate: Outputs, threshold: float) -> MatchedDetections:
    """Match detections as `match_detections` does, and refuse one without a match.

    Raises:
        GateError: a detection has no match.
    """
    found = match_detections(reference, candidate, threshold)
    if found.matched < found.detections:
        missing = found.detections - found.matched
        raise GateError(f"{missing} of {found.detections} detections of the exported file differ from PyTorch's", REMEDY)
    return found
