"""Comparing a canonical graph with its file on ONNX Runtime, once for each file."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from emca_deploy.artifacts import write_json
from emca_deploy.canonical.marks import compared_values
from emca_deploy.errors import EmcaError
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.tasks.detector_layers import CROPS, values_before

if TYPE_CHECKING:
    import onnx

__all__ = ["TOLERANCE", "TOLERANCE_OF_HALF", "known_error", "largest_error", "remember_error"]

TOLERANCE = 1e-5
"""Largest difference relative to the largest logit. Folding rounds weights once more."""

TOLERANCE_OF_HALF = 2e-3
"""Tolerance for a float16 file, which rounds every tensor to 11 bits."""

IMAGES = 8


def _cache_file(key: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "emca-deploy" / "canonical" / f"{key}.json"


def known_error(key: str) -> float | None:
    """Return the error that an earlier check of the same file found; None without one."""
    try:
        value = json.loads(_cache_file(key).read_text(encoding="utf-8"))["error"]
        return float(value) if value is not None else float("inf")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def remember_error(key: str, error: float) -> None:
    """Keep the error for the next run; where it cannot be written, the next run checks again."""
    path = _cache_file(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"error": error if np.isfinite(error) else None})
    except (OSError, EmcaError):
        pass


def largest_error(file: OnnxFile, logits: str | None, model: ir.Model, image_size: tuple[int, int] | None) -> float:
    """Return the largest difference of logits or dense outputs on seeded inputs, relative to the largest of each tensor.

    It is infinity where one does not run. `logits` names the file's tensor; None is for a detector. A dynamic input gets
    `image_size`, (height, width) in pixels.
    """
    canonical = ir.to_proto(model)
    images = _images(file, image_size)
    batch = file.image.batch
    ours = [str(value.name) for value in compared_values(model.graph) if not _has_regions(value)]
    theirs = ours if logits is None else [logits]
    try:
        wanted = _run(file.load_proto(), theirs, file.image.name, images, batch or 1)
        found = _run(canonical, ours, file.image.name, images, batch or IMAGES)
    except Exception:  # onnxruntime raises a dozen unrelated classes
        return float("inf")
    return max(map(_relative, wanted, found), default=float("inf"))


def _has_regions(value: ir.Value) -> bool:
    """Return whether a tensor is computed from regions of selected boxes: rounding changes their order."""
    producers = {before.producer() for before in values_before([value])}
    return any(node is not None and node.op_type in CROPS for node in producers)


def _relative(wanted: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> float:
    if wanted.size != found.size or not np.isfinite(wanted).all():
        return float("inf")
    scale = float(np.abs(wanted).max()) or 1.0
    return float(np.abs(wanted - found.reshape(wanted.shape)).max()) / scale


def _images(file: OnnxFile, image_size: tuple[int, int] | None) -> npt.NDArray[Any]:
    """Return seeded inputs in the model's layout and type: noise, or pixels where the graph normalizes them."""
    image = file.image
    height, width = (image.height or (image_size or (224, 224))[0]), (image.width or (image_size or (224, 224))[1])
    shape = (height, width, image.channels or 3) if image.layout == "NHWC" else (image.channels or 3, height, width)
    random = np.random.default_rng(0)
    if file.pixel_range is not None:
        values = random.integers(0, 256, (IMAGES, *shape)) * (file.pixel_range / 255)
    else:
        values = random.standard_normal((IMAGES, *shape))
    return values.astype(image.dtype)


def _run(
    proto: "onnx.ModelProto", tensors: Sequence[str], name: str, images: npt.NDArray[Any], batch: int
) -> list[npt.NDArray[np.float64]]:
    """Return some tensors for all images, run `batch` at a time; the last batch is filled by repetition."""
    import onnx
    import onnxruntime

    given = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors if tensor not in given)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rows = []
    for start in range(0, len(images), batch):
        part = images[[(start + i) % len(images) for i in range(batch)]]
        found = session.run(list(tensors), {name: part})
        rows.append([np.asarray(tensor, np.float64)[: len(images) - start] for tensor in found])
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]
