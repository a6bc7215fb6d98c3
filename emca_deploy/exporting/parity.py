"""Compares an exported model with its torch module on random and real images."""

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

__all__ = [
    "MAX_RELATIVE_ERROR", "Parity", "check_parity", "gated_parity", "measure_parity", "outputs_by_name", "parity_images",
    "real_images", "run_onnx",
]  # fmt: skip

MAX_RELATIVE_ERROR = 1e-5
"""Gate of fp32: two runtimes add a few thousand products in different orders, and each sum rounds by 6e-8."""

REAL_IMAGES = 4


@dataclass(frozen=True)
class Parity:
    """The difference between the logits of a reference and of a candidate.

    Attributes:
        max_abs: Largest absolute difference of a logit.
        max_rel: `max_abs` divided by the largest absolute logit of the reference.
        cosine: Smallest cosine similarity of an image's logits.
    """

    max_abs: float
    max_rel: float
    cosine: float
    samples: int


def measure_parity(reference: Float32Array, candidate: Float32Array) -> Parity:
    """Compare logits (N, classes) of a reference and a candidate; NaN in either makes every figure NaN or infinite."""
    wide, other = reference.astype(np.float64), candidate.astype(np.float64)
    with np.errstate(all="ignore"):  # infinities give NaN, which the gate refuses
        max_abs = float(np.abs(wide - other).max())
        norms = np.linalg.norm(wide, axis=1) * np.linalg.norm(other, axis=1)
        cosine = float(((wide * other).sum(1) / np.maximum(norms, np.finfo(np.float64).tiny)).min())
    return Parity(max_abs, max_abs / max(float(np.abs(wide).max()), float(np.finfo(np.float32).tiny)), cosine, len(wide))


def gated_parity(reference: Float32Array, candidate: Float32Array, gate: float, problem: str, remedy: str) -> Parity:
    """Compare logits (N, classes) and refuse a relative error above `gate`; `problem` says what differs from what.

    Raises:
        GateError: the error is larger, or not a number.
    """
    parity = measure_parity(reference, candidate)
    if not parity.max_rel <= gate:  # also true of NaN
        raise GateError(f"{problem} by {parity.max_rel:.2g} relative, more than {gate:.2g}", remedy)
    return parity


def real_images(preprocessing: Preprocessing) -> Float32Array:
    """Return a few bundled images, (N, 3, H, W) float32, whose statistics reach every layer as those of noise do not."""
    from emca_deploy.data.bundled import bundled_test_images
    from emca_deploy.data.sources import open_source

    return next(iter(open_source(bundled_test_images(), preprocessing).batches(REAL_IMAGES)))[0]


def parity_images(image_size: Size, real: Float32Array | None, random: int = 4, seed: int = 0) -> Float32Array:
    """Return images for measuring parity, standard normal ones and then the `real` ones: (N, 3, H, W) float32."""
    noise = np.random.default_rng(seed).standard_normal((random, 3, *sides(image_size))).astype(np.float32)
    return noise if real is None else np.concatenate([noise, real])


def check_parity(module: "nn.Module", path: Path, images: Float32Array) -> Parity:
    """Compare the logits of an exported file with those of its module in eval mode, on images (N, 3, H, W) float32.

    ONNX Runtime runs the file on the CPU.

    Raises:
        GateError: the relative error exceeds `MAX_RELATIVE_ERROR`, or PyTorch's own logits are not finite.
        ModelError: ONNX Runtime refuses the file, or memory does not suffice for its batch.
    """
    torch = import_optional("torch")
    with torch.inference_mode():
        reference: Float32Array = np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in images])
    if not np.isfinite(reference).all():
        raise GateError(
            "the network's own logits in PyTorch are infinite or NaN, and the export cannot be compared with them",
            "use weights that give finite logits: an earlier checkpoint, or the other of --weights ema and --weights plain",
        )
    problem = "the exported logits differ from PyTorch's"
    remedy = "check the checkpoint for huge or invalid weights; if it is sound, report the architecture and versions"
    return gated_parity(reference, run_onnx(path, images)[0], MAX_RELATIVE_ERROR, problem, remedy)


def outputs_by_name(model: bytes, images: Float32Array) -> dict[str, Float32Array]:
    """Return all outputs (N, ...) of an ONNX file's bytes by name, for images (N, 3, H, W) float32; see `run_onnx`."""
    import onnx

    names = [value.name for value in onnx.load_from_string(model).graph.output]
    return {name: output[: len(images)] for name, output in zip(names, run_onnx(model, images), strict=True)}


def run_onnx(model: Path | bytes, images: Float32Array) -> list[Float32Array]:
    """Run an ONNX file, or its bytes, on ONNX Runtime's CPU provider with images (N, 3, H, W) float32.

    Returns the first output as (N, ...), and the other outputs of all batches, concatenated. A fixed batch is filled with zeros.

    Raises:
        ModelError: ONNX Runtime refuses the model, or memory does not suffice for its batch.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: other problems arrive as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # not worth a core for a few images
    try:
        source = model if isinstance(model, bytes) else str(model)
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0]
        batch = given.shape[0] if isinstance(given.shape[0], int) else 1
        chunks: list[list[Float32Array]] = []
        for start in range(0, len(images), batch):
            chunk = images[start : start + batch]
            padded = np.concatenate([chunk, np.zeros((batch - len(chunk), *chunk.shape[1:]), chunk.dtype)])
            first, *others = session.run(None, {given.name: padded})
            chunks.append([first[: len(chunk)], *(np.atleast_1d(other) for other in others)])
    except Exception as exc:  # onnxruntime raises a dozen unrelated classes, numpy MemoryError
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise ModelError(
            f"ONNX Runtime cannot run the exported model: {reason}", "try a smaller --batch, or another --opset"
        ) from exc
    return [np.concatenate(outputs) for outputs in zip(*chunks, strict=True)]
