"""Whether an exported model computes what the torch module computes, on random and on real images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emca_deploy._optional import import_optional
from emca_deploy.arrays import Float32Array
from emca_deploy.errors import GateError, ModelError
from emca_deploy.preprocessing import Preprocessing, Size, sides

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MAX_RELATIVE_ERROR", "Parity", "check_parity", "measure_parity", "parity_images", "real_images", "run_onnx"]

MAX_RELATIVE_ERROR = 1e-5
"""The fp32 gate: two runtimes sum a few thousand products in different orders, each rounding by 6e-8."""

REAL_IMAGES = 4
SILENT = 4
"""Of ONNX Runtime's log levels: what goes wrong arrives as an exception."""


@dataclass(frozen=True)
class Parity:
    """How far two sets of logits are apart.

    Attributes:
        max_abs: the largest absolute difference of a logit.
        max_rel: that divided by the largest absolute reference logit.
        cosine: the smallest cosine similarity of an image's logits.
    """

    max_abs: float
    max_rel: float
    cosine: float
    samples: int


def measure_parity(reference: Float32Array, candidate: Float32Array) -> Parity:
    """Compare logits (N, classes) of the reference and the candidate; NaN anywhere makes every figure NaN or infinite."""
    wide, other = reference.astype(np.float64), candidate.astype(np.float64)
    with np.errstate(all="ignore"):  # infinities give NaN, which the gate refuses
        max_abs = float(np.abs(wide - other).max())
        norms = np.linalg.norm(wide, axis=1) * np.linalg.norm(other, axis=1)
        cosine = float(((wide * other).sum(1) / np.maximum(norms, np.finfo(np.float64).tiny)).min())
    return Parity(max_abs, max_abs / max(float(np.abs(wide).max()), float(np.finfo(np.float32).tiny)), cosine, len(wide))


def real_images(preprocessing: Preprocessing) -> Float32Array:
    """Return a few of the bundled photographs, (N, 3, H, W) float32: real statistics, unlike noise, reach every layer."""
    from emca_deploy.data.bundled import bundled_test_images
    from emca_deploy.data.sources import open_source

    return next(iter(open_source(bundled_test_images(), preprocessing).batches(REAL_IMAGES)))[0]


def parity_images(image_size: Size, real: Float32Array | None, random: int = 4, seed: int = 0) -> Float32Array:
    """Return the images parity is measured on: standard normal ones, then the `real` ones; (N, 3, H, W) float32."""
    noise = np.random.default_rng(seed).standard_normal((random, 3, *sides(image_size))).astype(np.float32)
    return noise if real is None else np.concatenate([noise, real])


def check_parity(module: "nn.Module", path: Path, images: Float32Array, gate: float = MAX_RELATIVE_ERROR) -> Parity:
    """Hold the logits of an exported file against those of its module in eval mode, on images (N, 3, H, W) float32.

    The gate is the largest relative error allowed. ONNX Runtime runs the file on the CPU.

    Raises:
        GateError: the error is larger, or PyTorch's own logits are not finite.
        ModelError: ONNX Runtime refuses the file, or memory does not suffice for its batch.
    """
    reference = _torch_logits(module, images)
    if not np.isfinite(reference).all():
        raise GateError(
            "the network's own logits in PyTorch are infinite or NaN, so there is nothing to hold the export against",
            "use weights that give finite logits: an earlier checkpoint, or the other of --weights ema and --weights plain",
        )
    parity = measure_parity(reference, run_onnx(path, images)[0])
    if not parity.max_rel <= gate:  # also true of NaN
        raise GateError(
            f"the exported logits differ from PyTorch's by {parity.max_rel:.2g} relative, more than {gate:.2g}",
            "check the checkpoint for huge or invalid weights; if it is sound, report the architecture and versions",
        )
    return parity


def _torch_logits(module: "nn.Module", images: Float32Array) -> Float32Array:
    torch = import_optional("torch")
    with torch.inference_mode():
        logits: Float32Array = np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in images])
    return logits


def run_onnx(model: Path | bytes, images: Float32Array) -> list[Float32Array]:
    """Run an ONNX file, or its bytes, on ONNX Runtime's CPU provider with images (N, 3, H, W) float32.

    Returns the first output as (N, ...), and of the others what each batch gave. A fixed batch is filled with zeros.

    Raises:
        ModelError: ONNX Runtime refuses the model, or memory does not suffice for its batch.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a few images, next to whatever else runs
    try:
        source = model if isinstance(model, bytes) else str(model)
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0]
        batch = given.shape[0] if isinstance(given.shape[0], int) else 1
        chunks: list[list[Float32Array]] = []
        for start in range(0, len(images), batch):
            chunk = images[start : start + batch]
            padded = np.concatenate([chunk, np.zeros((batch - len(chunk), *chunk.shape[1:]), np.float32)])
            first, *others = session.run(None, {given.name: padded})
            chunks.append([first[: len(chunk)], *(np.atleast_1d(other) for other in others)])
    except Exception as exc:  # onnxruntime raises a dozen unrelated classes, numpy MemoryError
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise ModelError(
            f"ONNX Runtime cannot run the exported model: {reason}", "try a smaller --batch, or another --opset"
        ) from exc
    return [np.concatenate(outputs) for outputs in zip(*chunks, strict=True)]
