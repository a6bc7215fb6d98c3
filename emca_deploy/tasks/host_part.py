"""What follows a detector's dense part: detections from its dense outputs, in numpy on the host."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.artifacts import read_manifest
from emca_deploy.errors import DataError, ModelError
from emca_deploy.npz import read_arrays
from emca_deploy.results.codec import from_json
from emca_deploy.tasks.detection_post import HostDetections, rcnn_detections, retinanet_detections
from emca_deploy.tasks.detector_config import DetectorConfig
from emca_deploy.tasks.task import Arrays

__all__ = ["HEADS", "heads_path", "host_part"]

HEADS = "roi."
"""Beginning of the names of the weights that the host needs of Faster R-CNN and Mask R-CNN."""

REMEDY = "export it again with --part dense, and keep the files next to it that the export writes"


def heads_path(model: Path) -> Path:
    """Return the file with the weights of the box and mask heads of a dense part: an .npz file next to it."""
    return model.with_name(f"{model.name}.heads.npz")


def host_part(name: str, artifact: Path, output: str, image_size: tuple[int, int]) -> Callable[[Arrays], Arrays]:
    """Return a function that makes a detector's outputs of fixed shapes from dense outputs.

    Args:
        name: Name of the model, for errors.
        artifact: Dense part, or an engine built from it, whose manifest has the conventions of the detector.
        output: Name of its main output: "logits_p3" of RetinaNet, "objectness_p2" of the others.
        image_size: Height and width of the network's input in pixels.

    Raises:
        ModelError: the manifest lacks the conventions, or the weights of the heads are missing.
    """
    config, heads = _read(name, artifact)
    if output.startswith("logits"):
        return lambda dense: _padded(retinanet_detections(dense, config, image_size), config)
    try:
        weights = read_arrays(heads)
    except (ValueError, OSError) as error:
        raise ModelError(f"{name}: {heads}, which has the weights of its box head: {error}", REMEDY) from error
    return lambda dense: _padded(rcnn_detections(dense, weights, config, image_size), config)


def _read(name: str, artifact: Path) -> tuple[DetectorConfig, Path]:
    """Return the conventions of a detector, and the place of its heads: its own, or those of the file it was made from."""
    manifest = read_manifest(artifact, verify=False)
    details = {} if manifest is None else manifest.details
    try:
        config = from_json(DetectorConfig, details["detector"]["config"])
    except (KeyError, TypeError, DataError) as error:
        raise ModelError(f"{name}: is the dense part of a detector, and its manifest lacks the conventions", REMEDY) from error
    own = heads_path(artifact)
    return config, own if own.is_file() else artifact.with_name(str(details["detector"].get("heads", own.name)))


def _padded(found: Sequence[HostDetections], config: DetectorConfig) -> dict[str, npt.NDArray[Any]]:
    """Return detections as the outputs of a whole detector; rows from num_detections on are zero."""
    count, rows = len(found), config.max_detections
    outputs: dict[str, npt.NDArray[Any]] = {
        "num_detections": np.array([len(one.scores) for one in found], np.int32),
        "boxes": np.zeros((count, rows, 4), np.float32),
        "scores": np.zeros((count, rows), np.float32),
        "labels": np.zeros((count, rows), np.int32),
    }
    masks = next((one.masks for one in found if one.masks is not None), None)
    if masks is not None:
        outputs["masks"] = np.zeros((count, rows, *masks.shape[1:]), np.float32)
    for index, one in enumerate(found):
        for name in outputs.keys() - {"num_detections"}:
            outputs[name][index, : len(one.scores)] = getattr(one, name)
    return outputs
