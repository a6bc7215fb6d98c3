"""Small classifiers, each described once and built as an ONNX graph and as a PyTorch module with the same weights."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 32
CLASSES = 10
OPSET = 20

Describe = Callable[[Any, Any], Any]
"""Function that describes a network by operations: (operations, images) to logits."""


@dataclass
class Weights:
    """Weights by name, made at first use and determined by the seed."""

    seed: int
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def get(self, name: str, shape: tuple[int, ...], scale: float | None = None) -> np.ndarray:
        if name not in self.arrays:
            rng = np.random.default_rng([self.seed, *name.encode()])
            fan_in = int(np.prod(shape[1:])) or 1
            deviation = scale if scale is not None else (2 / fan_in) ** 0.5
            self.arrays[name] = (rng.standard_normal(shape) * deviation).astype(np.float32)
        return self.arrays[name]


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph under construction: its name and its number of channels."""

    name: str
    channels: int


class OnnxOperations:
    """Operations that append nodes to an ONNX graph."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [f"{name}/out"], name=name, **attributes))
        return f"{name}/out"

    def constant(self, name: str, array: np.ndarray) -> str:
        self.initializers[name] = numpy_helper.from_array(array, name)
        return name

    def conv(self, x: Tensor, name: str, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self._weights.get(f"{name}.weight", (channels, x.channels // groups, kernel, kernel))
        bias = self._weights.get(f"{name}.bias", (channels,), 0.1)
        inputs = [x.name, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        pad = kernel // 2
        out = self.node(
            "Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, group=groups, dilations=[1, 1]
        )
        return Tensor(out, channels)

    def relu(self, x: Tensor, name: str) -> Tensor:
        return Tensor(self.node("Relu", [x.name], name), x.channels)

    def clip6(self, x: Tensor, name: str) -> Tensor:
        bounds = [self.constant(f"{name}.{end}", np.array(value, np.float32)) for end, value in (("min", 0), ("max", 6))]
        return Tensor(self.node("Clip", [x.name, *bounds], name), x.channels)

    def sigmoid(self, x: Tensor, name: str) -> Tensor:
        return Tensor(self.node("Sigmoid", [x.name], name), x.channels)

    def add(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        return Tensor(self.node("Add", [x.name, y.name], name), x.channels)

    def mul(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        return Tensor(self.node("Mul", [x.name, y.name], name), x.channels)

    def max_pool(self, x: Tensor, name: str) -> Tensor:
        return Tensor(self.node("MaxPool", [x.name], name, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), x.channels)

    def mean(self, x: Tensor, name: str) -> Tensor:
        return Tensor(self.node("GlobalAveragePool", [x.name], name), x.channels)

    def deviation(self, x: Tensor, mean: Tensor, name: str) -> Tensor:
        centred = self.node("Sub", [x.name, mean.name], f"{name}.centred")
        square = self.node("Mul", [centred, centred], f"{name}.square")
        variance = self.node("GlobalAveragePool", [square], f"{name}.variance")
        epsilon = self.constant(f"{name}.epsilon", np.array(1e-5, np.float32))
        raised = self.node("Add", [variance, epsilon], f"{name}.raised")
        return Tensor(self.node("Sqrt", [raised], name), x.channels)

    def style(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        """Mix (N, C, 1, 1) means and deviations, channel by channel."""
        stacked = self.node("Concat", [x.name, y.name], f"{name}.concat", axis=2)
        weight = self.constant(f"{name}.weight", self._weights.get(f"{name}.weight", (x.channels, 1, 2, 1)))
        return Tensor(self.node("Conv", [stacked, weight], name, kernel_shape=[2, 1], group=x.channels), x.channels)

    def across(self, x: Tensor, name: str, kernel: int = 3) -> Tensor:
        """Convolve (N, C, 1, 1) along its channels, like ECA."""
        row = self.node("Reshape", [x.name, self.constant(f"{name}.row", np.array([-1, 1, x.channels, 1]))], f"{name}.view")
        weight = self.constant(f"{name}.weight", self._weights.get(f"{name}.weight", (1, 1, kernel, 1), 1.0))
        conv = self.node("Conv", [row, weight], name, kernel_shape=[kernel, 1], pads=[kernel // 2, 0] * 2)
        shape = self.constant(f"{name}.column", np.array([-1, x.channels, 1, 1]))
        return Tensor(self.node("Reshape", [conv, shape], f"{name}.back"), x.channels)

    def mix(self, now: Tensor, before: Tensor, name: str) -> Tensor:
        """Add an earlier map's descriptor, with repeated channels, to this one's, and rectify, like EMCA."""
        factors = [self.constant(f"{name}.{end}", np.full((1, 1, 1, 1), 0.5, np.float32)) for end in ("now", "before")]
        scaled = self.node("Mul", [now.name, factors[0]], f"{name}.scaled")
        earlier = self.node("Mul", [before.name, factors[1]], f"{name}.earlier")
        repeated = self.node("Concat", [earlier] * (now.channels // before.channels), f"{name}.repeat", axis=1)
        return self.relu(Tensor(self.node("Add", [scaled, repeated], f"{name}.sum"), now.channels), name)

    def linear(self, x: Tensor, name: str, classes: int) -> Tensor:
        flat = self.node("Flatten", [x.name], f"{name}.flatten", axis=1)
        weight = self.constant(f"{name}.weight", self._weights.get(f"{name}.weight", (classes, x.channels)))
        bias = self.constant(f"{name}.bias", self._weights.get(f"{name}.bias", (classes,), 0.1))
        return Tensor(self.node("Gemm", [flat, weight, bias], name, transB=1), classes)


def _residual(ops: Any, x: Any, attend: Callable[[Any, Any, str], Any] | None = None, width: int = 16) -> Any:
    """A stem and two stages, each with one block with a convolution as its shortcut and one without."""
    x = ops.max_pool(ops.relu(ops.conv(x, "stem", width), "stem.relu"), "stem.pool")
    for stage, channels in enumerate((width, 2 * width)):
        for block in range(2):
            name = f"stage{stage}.block{block}"
            stride = 2 if stage and not block else 1
            y = ops.relu(ops.conv(x, f"{name}.conv1", channels, 3, stride), f"{name}.relu1")
            y = ops.conv(y, f"{name}.conv2", channels)
            if attend is not None and not block:
                y = attend(ops, y, f"{name}.attention")
            shortcut = ops.conv(x, f"{name}.shortcut", channels, 1, stride) if stage and not block else x
            x = ops.relu(ops.add(y, shortcut, f"{name}.add"), f"{name}.relu2")
    return ops.linear(ops.mean(x, "pool"), "head", CLASSES)


def residual(ops: Any, x: Any) -> Any:
    return _residual(ops, x)


def squeeze_excitation(ops: Any, x: Any) -> Any:
    def attend(ops: Any, y: Any, name: str) -> Any:
        channels = y.channels
        hidden = ops.relu(ops.conv(ops.mean(y, f"{name}.pool"), f"{name}.reduce", channels // 4, 1), f"{name}.relu")
        return ops.mul(y, ops.sigmoid(ops.conv(hidden, f"{name}.expand", channels, 1), f"{name}.gate"), f"{name}.mul")

    return _residual(ops, x, attend)


def style_recalibration(ops: Any, x: Any) -> Any:
    def attend(ops: Any, y: Any, name: str) -> Any:
        mean = ops.mean(y, f"{name}.pool")
        mixed = ops.style(mean, ops.deviation(y, mean, f"{name}.deviation"), f"{name}.style")
        return ops.mul(y, ops.sigmoid(mixed, f"{name}.gate"), f"{name}.mul")

    return _residual(ops, x, attend)


def multiscale(ops: Any, x: Any) -> Any:
    """EMCA: ECA in one block per stage that also reads earlier maps' descriptors."""
    seen: list[Any] = []

    def attend(ops: Any, y: Any, name: str) -> Any:
        mean = ops.mean(y, f"{name}.pool")
        mixed = ops.mix(mean, seen[-1], f"{name}.mix") if seen else mean
        seen.append(mean)
        gate = ops.sigmoid(ops.across(mixed, f"{name}.across"), f"{name}.gate")
        return ops.mul(y, gate, f"{name}.mul")

    return _residual(ops, x, attend)


def mobile(ops: Any, x: Any) -> Any:
    """Inverted residuals with depthwise convolutions and ReLU6."""
    x = ops.clip6(ops.conv(x, "stem", 16, 3, 2), "stem.relu6")
    for index, (channels, stride) in enumerate(((16, 1), (24, 2), (24, 1))):
        name = f"block{index}"
        y = ops.clip6(ops.conv(x, f"{name}.expand", 4 * x.channels, 1), f"{name}.relu6a")
        y = ops.clip6(ops.conv(y, f"{name}.depthwise", y.channels, 3, stride, y.channels), f"{name}.relu6b")
        y = ops.conv(y, f"{name}.project", channels, 1)
        x = ops.add(y, x, f"{name}.add") if y.channels == x.channels and stride == 1 else y
    x = ops.clip6(ops.conv(x, "last", 64, 1), "last.relu6")
    return ops.linear(ops.mean(x, "pool"), "head", CLASSES)


NETWORKS: dict[str, Describe] = {
    "residual": residual,
    "multiscale": multiscale,
    "squeeze_excitation": squeeze_excitation,
    "style_recalibration": style_recalibration,
    "mobile": mobile,
}


def to_onnx(describe: Describe, seed: int = 0, size: int = SIZE) -> onnx.ModelProto:
    """Return a network in our exporter's form: named nodes, folded batch norms, dynamic batch."""
    ops = OnnxOperations(Weights(seed))
    logits = describe(ops, Tensor("images", 3))
    ops.nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        ops.nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", logits.channels])],
        list(ops.initializers.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model)
