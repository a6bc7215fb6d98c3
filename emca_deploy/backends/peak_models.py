"""Models of a single layer that measure the peak of this machine: a convolution in fp32 and in int8, and a copy."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

__all__ = ["PeakModel", "write_peak_models"]

CHANNELS, SIZES, KERNEL = 256, (28, 14), 3
"""The larger size fills any processor; the smaller one ends before a busy machine takes the processor away."""

COPY_SHAPE = (1, 64, 448, 448)
"""49 MiB of float32 at the input and at the output: more than most caches hold."""


@dataclass(frozen=True)
class PeakModel:
    """A model with one layer to measure.

    Attributes:
        name: "fp32" or "int8" for a convolution, "copy" for the copy.
        macs: Multiply-adds of the layer; 0 for the copy.
        moved_bytes: Bytes of the layer's input and output in float32.
    """

    name: str
    path: Path
    shape: tuple[int, int, int, int]
    macs: int
    moved_bytes: int


def write_peak_models(folder: Path) -> tuple[PeakModel, ...]:
    """Write the models into a folder: 3x3 convolutions of 256 to 256 channels in fp32 and int8, and a copy."""
    import onnx

    probes = []
    for size in SIZES:
        shape = (1, CHANNELS, size, size)
        macs = CHANNELS * CHANNELS * KERNEL * KERNEL * size * size
        fp32 = _model("y = Conv <pads = [1, 1, 1, 1]> (images, w)", shape, {"w": _weights()})
        for name, model in (("fp32", fp32), ("int8", _int8_convolution(shape))):
            path = folder / f"{name}-{size}.onnx"
            onnx.save(model, str(path))
            probes.append(PeakModel(name, path, shape, macs, 2 * 4 * int(np.prod(shape))))
    path = folder / "copy.onnx"
    onnx.save(_model("y = Relu(images)", COPY_SHAPE, {}), str(path))
    return (*probes, PeakModel("copy", path, COPY_SHAPE, 0, 2 * 4 * int(np.prod(COPY_SHAPE))))


def _model(body: str, shape: tuple[int, ...], arrays: "Mapping[str, npt.NDArray[Any]]") -> "onnx.ModelProto":
    """Return a model that computes `y` and ends in (N, classes), as all models here do: the mean of each channel."""
    from onnx import numpy_helper, parser

    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        probe (float[{",".join(map(str, shape))}] images) => (float[1,{shape[1]}] logits) {{
            {body}
            pooled = GlobalAveragePool(y)
            logits = Flatten(pooled)
        }}"""
    )
    for node in model.graph.node:
        node.name = "probe" if node.op_type in ("Conv", "Relu") else node.output[0]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def _weights() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS, KERNEL, KERNEL)).astype(np.float32) * 0.02


def _int8_convolution(shape: tuple[int, ...]) -> "onnx.ModelProto":
    """Return a convolution between Q/DQ pairs with unsigned activations and signed weights, as after a ReLU."""
    body = """
        xq = QuantizeLinear(images, scale, zero)
        x = DequantizeLinear(xq, scale, zero)
        wf = DequantizeLinear(w, w_scale, w_zero)
        c = Conv <pads = [1, 1, 1, 1]> (x, wf)
        cq = QuantizeLinear(c, scale, zero)
        y = DequantizeLinear(cq, scale, zero)"""
    arrays: dict[str, npt.NDArray[Any]] = {
        "scale": np.array(0.05, np.float32),
        "zero": np.array(0, np.uint8),
        "w": np.clip(np.rint(_weights() / 0.001), -127, 127).astype(np.int8),
        "w_scale": np.array(0.001, np.float32),
        "w_zero": np.array(0, np.int8),
    }
    return _model(body, shape, arrays)
