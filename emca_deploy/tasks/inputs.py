"""The image input of a classifier's graph, and the graph's own preprocessing of pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.header import dtype_name

if TYPE_CHECKING:
    import onnx

__all__ = ["ImageInput", "find_image", "input_layout", "native_images", "pixel_range", "random_images"]

CHANNELS = (1, 3)
NHWC_TO_NCHW = [0, 3, 1, 2]
PREAMBLE = frozenset({"Cast", "Transpose", "Identity", "Dropout"})
"""Operators at the input that do not change the values of pixels."""

ARITHMETIC = frozenset({"Sub", "Add", "Mul", "Div"})
LARGEST_MEAN_OF_UNIT_PIXELS = 1.5
"""A larger mean cannot be one of values in [0, 1]."""

LEAST_SLOPE_OF_UNIT_PIXELS = 0.1
"""Networks expect inputs of a few units: a smaller factor makes these from 0..255, a larger one from 0..1."""

Constant = Callable[[str], "npt.NDArray[Any] | None"]


@dataclass(frozen=True)
class ImageInput:
    """The input that takes images; a size is None where it is dynamic.

    Attributes:
        dtype: Type, "float32", "float16" or "uint8".
        layout: Order of the axes.
        batch: Images per call.
        channels: Number of channels, 1 or 3.
    """

    name: str
    dtype: str
    layout: Literal["NCHW", "NHWC"]
    batch: int | None
    channels: int | None
    height: int | None
    width: int | None


def native_images(images: "npt.NDArray[Any]", dtype: str, *, channels_last: bool) -> "npt.NDArray[Any]":
    """Return images (N, C, H, W) float32 in a model's layout and type; for uint8, values are rounded and clipped to 0..255."""
    values = images.transpose(0, 2, 3, 1) if channels_last else images
    if dtype == "uint8":
        values = np.clip(np.rint(values), 0, 255)
    return np.ascontiguousarray(values, dtype=dtype)


def random_images(
    random: np.random.Generator, shape: tuple[int, ...], to_native: "Callable[[Float32Array], npt.NDArray[Any]]"
) -> "npt.NDArray[Any]":
    """Return a random batch in a model's layout and type: pixels for uint8, else standard normal, like normalized images.

    Zeros could be faster, by sparse and denormal shortcuts. `shape` is (N, C, H, W).
    """
    images = to_native(random.standard_normal(shape, dtype=np.float32))
    return random.integers(0, 256, images.shape, np.uint8) if images.dtype == np.uint8 else images


def find_image(path: Path, graph: "onnx.GraphProto") -> ImageInput:
    """Return the one input of a graph that is not a weight.

    Raises:
        ModelError: the graph does not have exactly one, or it is not a batch of images.
    """
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    remedy = "use an image classifier: one input (N, C, H, W) or (N, H, W, C)"
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs[:5])
        raise ModelError(f"{path}: has {len(inputs)} inputs ({names}), not one", remedy)
    kind = inputs[0].type.tensor_type
    dims = [int(size.dim_value) if size.dim_value > 0 else None for size in kind.shape.dim]
    dtype = dtype_name(kind.elem_type)
    if len(dims) != 4 or dtype not in ("float32", "float16", "uint8"):
        shape = ", ".join("?" if size is None else str(size) for size in dims)
        raise ModelError(f"{path}: input '{inputs[0].name}' is {dtype} ({shape}), not a batch of images", remedy)
    layout = input_layout(dims, _transposed_at_once(graph, inputs[0].name))
    batch, channels, height, width = dims if layout == "NCHW" else (dims[0], dims[3], dims[1], dims[2])
    return ImageInput(inputs[0].name, dtype, layout, batch, channels, height, width)


def input_layout(dims: "list[int | None]", transposed: bool) -> Literal["NCHW", "NHWC"]:
    """Return the layout of a 4-D input: NHWC where a Transpose follows at once, or where only its last axis can be channels."""
    return "NHWC" if transposed or (dims[3] in CHANNELS and dims[1] not in (*CHANNELS, None)) else "NCHW"


def _transposed_at_once(graph: "onnx.GraphProto", name: str) -> bool:
    """Return whether an input reaches a Transpose from NHWC through nothing but arithmetic."""
    waiting, seen = [name], {name}
    while waiting:
        value = waiting.pop()
        for node in graph.node:
            if value not in node.input:
                continue
            if node.op_type == "Transpose" and any(a.name == "perm" and list(a.ints) == NHWC_TO_NCHW for a in node.attribute):
                return True
            if node.op_type in (PREAMBLE | ARITHMETIC) - {"Transpose"} and node.output[0] not in seen:
                seen.add(node.output[0])
                waiting.append(node.output[0])
    return False


def pixel_range(graph: "onnx.GraphProto", image: ImageInput, constant: Constant) -> float | None:
    """Return the largest pixel value that a graph expects, 1.0 or 255.0, where it normalizes its input itself; else None.

    `constant` returns the value of a small constant by name, or None.
    """
    affine = _input_affine(graph, image.name, constant)
    if image.dtype == "uint8":
        return 255.0
    if affine is None:
        return None
    slope, offset = affine
    mean = np.max(-offset / slope)
    if mean > LARGEST_MEAN_OF_UNIT_PIXELS:
        return 255.0
    return 255.0 if np.max(np.abs(slope)) < LEAST_SLOPE_OF_UNIT_PIXELS else 1.0


def _input_affine(graph: "onnx.GraphProto", name: str, constant: Constant) -> "tuple[npt.NDArray[Any], npt.NDArray[Any]] | None":
    """Return slope and offset of the arithmetic at the input, each (1,) or (C,) float64, or None."""
    slope, offset, found = np.ones(1), np.zeros(1), False
    while True:
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1 or not readers[0].output:
            break
        node = readers[0]
        if node.op_type in ARITHMETIC and len(node.input) == 2:
            step = _step(node, name, constant)
            if step is None:
                break
            try:
                slope, offset, found = slope * step[0], offset * step[0] + step[1], True
            except ValueError:  # constants of different lengths
                break
        elif node.op_type not in PREAMBLE:
            break
        name = node.output[0]
    if not found or not np.all(np.isfinite(slope)) or not np.all(slope) or not np.all(np.isfinite(offset)):
        return None
    return slope, offset


def _step(node: "onnx.NodeProto", name: str, constant: Constant) -> "tuple[npt.NDArray[Any], npt.NDArray[Any]] | None":
    """Return slope and offset of one node with a constant of one value or one per channel."""
    first = node.input[0] == name
    value = constant(node.input[1] if first else node.input[0])
    if value is None or value.size > max(CHANNELS) or value.dtype.kind != "f":
        return None
    values, one, none = value.astype(np.float64).ravel(), np.ones(1), np.zeros(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = {
            "Add": (one, values),
            "Mul": (values, none),
            "Sub": (one, -values) if first else (-one, values),
            "Div": (1 / values, none) if first else None,
        }
    return steps[node.op_type]
