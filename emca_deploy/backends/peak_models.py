"""Models of a single layer, to measure what this machine reaches at best: one convolution in each precision, and one copy."""

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
"""Two sizes: one that fills any processor, and one that is done before a busy machine takes the processor away."""

COPY_SHAPE = (1, 64, 448, 448)
"""49 MiB of float32 in and as much out: more than most caches hold."""


@dataclass(frozen=True)
class PeakModel:
    """A model with one layer that counts.

    Attributes:
        name: "fp32" or "int8" of a convolution; "copy".
        macs: multiply-adds of the layer; 0 of the copy.
        moved_bytes: input and output of the layer, float32.
    """

    name: str
    path: Path
    shape: tuple[int, int, int, int]
    macs: int
    moved_bytes: int


def write_peak_models(folder: Path) -> tuple[PeakModel, ...]:
    """Write the probes' models into a folder: 3x3 convolutions of 256 to 256 channels, fp32 and int8, and a copy."""
    import onnx

    probes = []
    for size in SIZES:
        shape = (1, CHANNELS, size, size)
        macs = CHANNELS * CHANNELS * KERNEL * KERNEL * size * size
        for name, make in (("fp32", _float_convolution), ("int8", _int8_convolution)):
            path = folder / f"{name}-{size}.onnx"
            onnx.save(make(shape), str(path))
            probes.append(PeakModel(name, path, shape, macs, 2 * 4 * int(np.prod(shape))))
    path = folder / "copy.onnx"
    onnx.save(_copy(), str(path))
    return (*probes, PeakModel("copy", path, COPY_SHAPE, 0, 2 * 4 * int(np.prod(COPY_SHAPE))))


def _model(nodes: "list[onnx.NodeProto]", shape: tuple[int, ...], arrays: "Mapping[str, npt.NDArray[Any]]") -> "onnx.ModelProto":
    """Return a model that ends in (N, classes), as all that we run: the mean of each channel."""
    from onnx import TensorProto, helper, numpy_helper

    ends = [
        helper.make_node("GlobalAveragePool", ["y"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["logits"], name="flatten"),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, list(shape))]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, shape[1]])]
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([*nodes, *ends], "probe", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _weights() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS, KERNEL, KERNEL)).astype(np.float32) * 0.02


def _float_convolution(shape: tuple[int, ...]) -> "onnx.ModelProto":
    from onnx import helper

    nodes = [helper.make_node("Conv", ["images", "w"], ["y"], pads=[1, 1, 1, 1], name="probe")]
    return _model(nodes, shape, {"w": _weights()})


def _int8_convolution(shape: tuple[int, ...]) -> "onnx.ModelProto":
    """A convolution between QuantizeLinear and DequantizeLinear: unsigned activations from 0, signed weights, as after a ReLU."""
    from onnx import helper

    arrays: dict[str, npt.NDArray[Any]] = {
        "scale": np.array(0.05, np.float32),
        "zero": np.array(0, np.uint8),
        "w": np.clip(np.rint(_weights() / 0.001), -127, 127).astype(np.int8),
        "w_scale": np.array(0.001, np.float32),
        "w_zero": np.array(0, np.int8),
    }
    activation = ["scale", "zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["images", *activation], ["xq"], name="images/quantize"),
        helper.make_node("DequantizeLinear", ["xq", *activation], ["x"], name="images/dequantize"),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wf"], name="w/dequantize"),
        helper.make_node("Conv", ["x", "wf"], ["c"], pads=[1, 1, 1, 1], name="probe"),
        helper.make_node("QuantizeLinear", ["c", *activation], ["cq"], name="probe/quantize"),
        helper.make_node("DequantizeLinear", ["cq", *activation], ["y"], name="probe/dequantize"),
    ]
    return _model(nodes, shape, arrays)


def _copy() -> "onnx.ModelProto":
    from onnx import helper

    return _model([helper.make_node("Relu", ["images"], ["y"], name="probe")], COPY_SHAPE, {})
