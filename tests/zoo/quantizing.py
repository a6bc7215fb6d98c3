"""Calibrating a network of the zoo, and the SQNR of its INT8 logits on unseen images."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from emca_deploy.artifacts import Preprocessing
from emca_deploy.calibration.calibrate import calibrate_model
from emca_deploy.tasks.logits import signal_to_noise_db
from zoo.networks import SIZE
from zoo.recipes import calibration_options
from zoo.rewrites import MEAN, STD, Rewrite

SEEN, UNSEEN = 24, 48


class Images:
    """Seeded pictures of soft blobs in memory, normalised for the plain networks, in the form of an `ImageSource`.

    Args:
        count: Number of pictures.
        pixels: Largest pixel value for a network that normalises its input; None for normalised pixels.
        seed: Random seed of the pictures.
    """

    labels = None
    finished = True

    def __init__(self, count: int, pixels: float | None = None, seed: int = 0, size: int = SIZE) -> None:
        rng = np.random.default_rng(seed)
        coarse = rng.standard_normal((count, 3, 5, 5))
        along = np.linspace(0, 3.999, size)
        low, part = along.astype(int), along % 1
        rows = coarse[:, :, low] * (1 - part)[:, None] + coarse[:, :, low + 1] * part[:, None]
        images = rows[..., low] * (1 - part) + rows[..., low + 1] * part
        images = images + 0.2 * rng.standard_normal(images.shape)
        if pixels is not None:
            images = (images * STD.reshape(3, 1, 1) + MEAN.reshape(3, 1, 1)) * pixels
        self.images = images.astype(np.float32)
        self.preprocessing = Preprocessing.for_size(size)

    def __len__(self) -> int:
        return len(self.images)

    def item_name(self, index: int) -> str:
        return f"image {index}"

    def load(self, index: int) -> np.ndarray:
        return self.images[index]

    def size(self, index: int) -> int:
        return int(self.images[index].nbytes)

    def content(self, index: int) -> bytes:
        return self.images[index].tobytes()

    def identity(self) -> str:
        return "0" * 64

    def batches(self, batch_size, indices=None, threads=2):
        order = list(range(len(self.images)) if indices is None else indices)
        for start in range(0, len(order), batch_size):
            yield self.images[order[start : start + batch_size]], None


@dataclass(frozen=True)
class Quantized:
    """An INT8 model.

    Attributes:
        sqnr_db: SQNR of its logits on unseen images, against the float file's.
        layers: Sizes of the INT8 weights, with the number of layers of each.
    """

    sqnr_db: float
    layers: Counter


class Member:
    """A network of the zoo in one of its forms, as a file."""

    def __init__(self, model: onnx.ModelProto, rewrite: Rewrite, folder: Path) -> None:
        self.path, self._pixels, self._folder = folder / "model.onnx", rewrite.pixels, folder
        folder.mkdir(parents=True, exist_ok=True)
        if rewrite.sidecar:
            onnx.save(model, self.path, save_as_external_data=True, location="model.data", size_threshold=0)
        else:
            onnx.save(model, self.path)

    @cached_property
    def _reference(self) -> np.ndarray:
        return run(self.path, Images(UNSEEN, self._pixels, seed=1).images)

    def quantize(self, backend: str, recover: str = "weights", method: str = "auto") -> Quantized:
        output = self._folder / f"{backend}.onnx"
        options = calibration_options(backend, method, SEEN, recover=recover, weight_bits=8)
        calibrate_model(self.path, Images(SEEN, self._pixels), output, options)
        logits = run(output, Images(UNSEEN, self._pixels, seed=1).images)
        decibels = signal_to_noise_db(self._reference, logits)
        return Quantized(np.inf if decibels is None else decibels, int8_layers(output))


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """Return a file's logits (N, classes) of images (N, 3, H, W), with Q/DQ pairs computed by ONNX's definition."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "Softmax":  # the logits are its input
            del model.graph.output[:]
            model.graph.output.append(onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    entry = next(entry for entry in session.get_inputs() if entry.name == "images")
    if entry.shape[-1] == 3:
        images = images.transpose(0, 2, 3, 1)
    if entry.type == "tensor(float16)":
        images = images.astype(np.float16)
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else len(images)
    parts = [session.run(None, {"images": images[i : i + batch]})[-1] for i in range(0, len(images), batch)]
    return np.concatenate(parts).astype(np.float32)


def int8_layers(path: Path) -> Counter:
    """Return the sizes of a quantized file's INT8 weights with the number of layers of each."""
    graph = onnx.load(path).graph
    sizes = {tensor.name: (tensor.data_type, int(np.prod(tensor.dims))) for tensor in graph.initializer}
    weights = {
        node.output[0]: sizes[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in sizes
    }
    layers = (weights.get(node.input[1]) for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul"))
    return Counter(size for kind, size in filter(None, layers) if kind == onnx.TensorProto.INT8)
