"""A small residual network with attention, in fp32 and quantized for TensorRT, and TensorRT-RTX to build it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHANNELS, SIZE, CLASSES = 32, 16, 5


@pytest.fixture(scope="session")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


class Net:
    """Writer of ONNX graphs of convolutions, optionally with Q/DQ pairs."""

    def __init__(self, *, quantized: bool, activation: type | None = np.int8, bias: type = np.float32) -> None:
        from onnx import helper, numpy_helper

        self.helper, self.numpy_helper = helper, numpy_helper
        self.quantized, self.activation, self.bias = quantized, activation, bias
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.random = np.random.default_rng(0)

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(self.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(self.numpy_helper.from_array(np.asarray(value), name))
        return name

    def read(self, value: str) -> str:
        """Return the input of a quantized reader of `value`."""
        if not self.quantized or self.activation is None:
            return value
        if f"{value}/d" not in {output for node in self.nodes for output in node.output}:
            scale = self.constant(f"{value}/scale", np.float32(0.05))
            zero = self.constant(f"{value}/zero", self.activation(0))
            self.node("QuantizeLinear", [value, scale, zero], f"{value}/q")
            self.node("DequantizeLinear", [f"{value}/q", scale, zero], f"{value}/d")
        return f"{value}/d"

    def conv(self, value: str, name: str, inputs: int) -> str:
        shape = (CHANNELS, inputs, 3, 3)
        bias = self.constant(f"{name}.bias", self.random.standard_normal(CHANNELS).astype(np.float32))
        if self.quantized:
            integers = self.constant(f"{name}.int8", self.random.integers(-127, 128, shape).astype(np.int8))
            scales = self.constant(f"{name}.scale", np.full(CHANNELS, 0.001, np.float32))
            zeros = self.constant(f"{name}.zero", np.zeros(CHANNELS, np.int8))
            weight = self.node("DequantizeLinear", [integers, scales, zeros], f"{name}.weight", axis=0)
            if self.bias is np.int32:
                whole = self.constant(f"{name}.bias/int32", np.ones(CHANNELS, np.int32))
                bias = self.node("DequantizeLinear", [whole, scales], f"{name}.bias/d", axis=0)
        else:
            weight = self.constant(f"{name}.weight", self.random.standard_normal(shape).astype(np.float32) * 0.1)
        return self.node("Conv", [self.read(value), weight, bias], name, pads=[1, 1, 1, 1])

    def save(self, path: Path, batch: str | int, size: int | str = SIZE) -> Path:
        """Write stem, one attended residual block and a head."""
        import onnx
        from onnx import TensorProto

        stem = self.node("Relu", [self.conv("images", "stem", 3)], "stem.relu")
        one = self.node("Relu", [self.conv(stem, "block.conv1", CHANNELS)], "block.relu")
        two = self.conv(one, "block.conv2", CHANNELS)
        gate = self.node("Sigmoid", [self.node("GlobalAveragePool", [two], "block.pool")], "block.gate")
        gated = self.node("Mul", [two, gate], "block.mul")
        out = self.node("Relu", [self.node("Add", [gated, self.read(stem)], "block.add")], "block.out")
        flat = self.node("Flatten", [self.node("GlobalAveragePool", [out], "pool")], "flat")
        head = self.constant("head.weight", self.random.standard_normal((CHANNELS, CLASSES)).astype(np.float32))
        self.node("MatMul", [flat, head], "logits")
        images = self.helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, size, size])
        logits = self.helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])
        graph = self.helper.make_graph(self.nodes, "net", [images], [logits], self.constants)
        opset = self.helper.make_opsetid("", 17)
        onnx.save(self.helper.make_model(graph, opset_imports=[opset], ir_version=8), str(path))
        return path


@pytest.fixture(scope="session")
def net_class() -> type[Net]:
    return Net


@pytest.fixture
def make_net(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "net.onnx", batch: str | int = "batch", size: int | str = SIZE, **options: Any) -> Path:
        return Net(**{"quantized": True, **options}).save(tmp_path / name, batch, size)

    return make
