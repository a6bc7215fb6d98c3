"""The outputs of a detector's graph, and detections in its images' pixels from them."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from emca_deploy.data.preprocess import Placement
from emca_deploy.data.rle import compress
from emca_deploy.errors import ModelError
from emca_deploy.tasks.detections import Detections
from emca_deploy.tasks.mask_pasting import pasted_counts

__all__ = ["detections_of"]

Outputs = Mapping[str, npt.NDArray[np.generic]]


def detections_of(name: str, outputs: Outputs, placements: Sequence[Placement]) -> Detections:
    """Return the detections of a batch in the pixels of its images.

    Boxes are clipped to their image; one that lies outside, in the padding of a letterbox, is left out. A mask is pasted for the
    box before it is clipped, because its grid covers that one.

    Args:
        name: Name of the model, for errors.
        outputs: num_detections (N,), boxes (N, D, 4), scores (N, D), labels (N, D), and masks (N, D, rows, columns) where the
            model has them; rows from num_detections on are ignored. There may be more than the images.
        placements: Place of each image in the model's input.

    Raises:
        ModelError: an output is not finite, or num_detections is not between 0 and D.
    """
    counts = np.asarray(outputs["num_detections"]).reshape(-1)[: len(placements)].astype(np.int64)
    most = np.asarray(outputs["scores"]).shape[1]
    if len(counts) and not 0 <= counts.min() <= counts.max() <= most:
        raise ModelError(f"{name}: num_detections is {counts.tolist()} for at most {most} detections", "export it again")
    found = [_of_image(name, outputs, index, int(count), placements[index]) for index, count in enumerate(counts)]
    return Detections.joined(found)


def _of_image(name: str, outputs: Outputs, index: int, count: int, placement: Placement) -> Detections:
    boxes = np.asarray(outputs["boxes"][index, :count], np.float32)
    scores = np.asarray(outputs["scores"][index, :count], np.float32)
    labels = np.asarray(outputs["labels"][index, :count]).astype(np.int64)
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ModelError(
            f"{name}: a box or score of its detections is NaN or infinite",
            "calibrate or export it again; in fp16 or bf16 an overflow is likely: use fp32 for those layers",
        )
    height, width = placement.size
    whole = placement.to_image(boxes)
    clipped = np.clip(whole, 0, np.array([width, height] * 2, np.float32))
    kept = np.flatnonzero((clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1]))
    order = kept[np.argsort(-scores[kept], kind="stable")]
    texts = None
    if "masks" in outputs:
        grids = np.asarray(outputs["masks"][index], np.float32)
        texts = [compress(pasted_counts(grids[row], whole[row], placement.size)) for row in order]
    return Detections(
        counts=np.array([len(order)], np.int64),
        boxes=clipped[order],
        scores=scores[order],
        labels=labels[order],
        mask_text=None if texts is None else np.frombuffer(b"".join(texts), np.uint8),
        mask_lengths=None if texts is None else np.array([len(text) for text in texts], np.int64),
    )
