"""What of a quantized model a backend runs in INT8, and what keeps the rest in float: somebody else's files explained.

A backend finds its INT8 kernels by patterns of Q/DQ pairs; where one is missing, it computes in float and says nothing. The rules
here are those patterns, checked against the runtimes themselves in the tests.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy._machine import cpu_info
from emca_deploy._text import shell_word
from emca_deploy.calibration.explaining.words import FINDINGS
from emca_deploy.calibration.graphs.attention_path import find_attention
from emca_deploy.calibration.graphs.weighted_layers import image_multiply_adds
from emca_deploy.calibration.placement.place import RECIPES
from emca_deploy.calibration.placement.quantize import LARGEST_WEIGHT
from emca_deploy.errors import ModelError
from emca_deploy.multiply_adds import WEIGHT_INPUT
from emca_deploy.onnx_file import OnnxFile
from emca_deploy.results.int8 import Int8Finding, Int8Form, Int8Report

__all__ = ["explain_file", "explain_int8", "refuse_quantized"]

EIGHT_BITS = frozenset({ir.DataType.INT8, ir.DataType.UINT8})
CUTS = frozenset({"Relu", "Clip"})
INTEGER_LAYERS = frozenset(
    {"QLinearConv", "ConvInteger", "MatMulInteger", "QLinearMatMul", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
)
FUSED_BY_ONNXRUNTIME = frozenset({
    "Add", "Mul", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax", "Concat", "MaxPool",
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Resize", "Identity",
    "Expand", "Where", "ArgMax", "Pad", "DepthToSpace", "Relu", "Clip",
})  # fmt: skip
"""Operators besides layers that ONNX Runtime computes in INT8 between a DQ and a Q."""


def explain_file(path: Path, backend: str) -> Int8Report | None:
    """Explain a quantized ONNX file on this machine; None of a float one, and for a backend without rules.

    Raises:
        ModelError: it cannot be read.
    """
    file = OnnxFile.open(path)
    if not file.is_quantized or backend not in RULES:
        return None
    model = file.load()
    common.ShapeInferencePass()(model)
    return explain_int8(model.graph, backend, saturates=RECIPES[backend].on_cpu and cpu_info().saturates_int8)


def refuse_quantized(path: Path, backend: str) -> None:
    """Refuse to quantize a file that is quantized already, and say what a backend makes of it.

    Raises:
        ModelError: it is quantized already, or cannot be read.
    """
    found = explain_file(path, backend)
    if found is None:
        return
    causes = [f"{finding.nodes[0]} {finding.problem}" for finding in found.findings[:2]]
    said = f"{found.int8_layers} of its {found.layers} layers run in INT8 on {backend}"
    raise ModelError(
        f"{path}: is quantized already; {'; '.join([said, *causes])}",
        f"name the fp32 model it was made from; what else is in the way: emca-deploy layers {shell_word(str(path))}",
    )


def explain_int8(graph: ir.Graph, backend: str, *, saturates: bool = False) -> Int8Report:
    """Explain a quantized graph.

    Args:
        graph: with its shapes inferred, weights in memory.
        backend: that is to run it: openvino, onnxruntime, tensorrt or tensorrt-rtx.
        saturates: whether the processor adds INT8 products in 16 bits; see `CpuInfo.saturates_int8`.
    """
    return _Explainer(graph, backend, saturates=saturates).report()


@dataclass
class _Pair:
    """A DequantizeLinear: what it reads, and how that is quantized."""

    node: ir.Node

    @property
    def source(self) -> ir.Node | None:
        """The QuantizeLinear that makes what it reads; None for stored integers."""
        value = self.node.inputs[0]
        return value.producer() if value is not None else None

    @property
    def dtype(self) -> ir.DataType | None:
        """Of the integers."""
        zero = self.node.inputs[2] if len(self.node.inputs) > 2 else None
        for value in (zero, self.node.inputs[0]):
            if value is not None and (found := value.dtype or (value.const_value.dtype if value.const_value else None)):
                return found
        return None

    @property
    def zero_points(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
        """Its zero points, of any shape."""
        return _numbers(self.node.inputs[2] if len(self.node.inputs) > 2 else None, 0)

    @property
    def scales(self) -> int:
        """How many scales it has."""
        value = self.node.inputs[1]
        return int(np.prod([size for size in value.shape if isinstance(size, int)])) if value is not None and value.shape else 1


def _numbers(value: ir.Value | None, default: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    if value is None or value.const_value is None:
        return np.array(default)
    return np.asarray(value.const_value.numpy()).astype(np.int64)


def _pair(value: ir.Value | None) -> _Pair | None:
    """Return the DequantizeLinear that makes a tensor, or None."""
    producer = value.producer() if value is not None else None
    return _Pair(producer) if producer is not None and producer.op_type == "DequantizeLinear" else None


@dataclass
class _Explainer:
    graph: ir.Graph
    backend: str
    saturates: bool
    found: dict[str, list[str]] = field(default_factory=dict)

    def report(self) -> Int8Report:
        """Walk the graph and return what was found."""
        attention = find_attention(self.graph).nodes
        layers = {node: image_multiply_adds(node) for node in self.graph if node.op_type in WEIGHT_INPUT}
        quantized = [node for node in layers if self._is_int8(node, in_attention=node in attention)]
        for node in self.graph:
            self._look_between(node)
        whole = sum(layers.values())
        share = 100 * sum(layers[node] for node in quantized) / whole if whole else 0.0
        found = tuple(
            Int8Finding(kind, tuple(self.found[kind]), *(text.format(backend=self.backend) for text in words))
            for kind, words in FINDINGS.items()
            if kind in self.found
        )
        return Int8Report(self.backend, self._form(), len(layers), len(quantized), round(share, 2), found)

    def _form(self) -> Int8Form:
        kinds = {node.op_type for node in self.graph}
        if kinds & {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}:
            return "dynamic"
        return "operators" if kinds & INTEGER_LAYERS else "qdq"

    def _tell(self, kind: str, node: ir.Node) -> bool:
        """Record something; returns False, for what is in the way of INT8."""
        names = self.found.setdefault(kind, [])
        name = node.name or str(node.outputs[0].name)
        if name not in names:
            names.append(name)
        return False

    def _is_int8(self, node: ir.Node, *, in_attention: bool) -> bool:
        """Return whether the backend runs a layer in INT8, and record what is in the way; attention belongs in float."""
        if node.op_type in INTEGER_LAYERS:
            return self._integer_operator(node)
        activation, weight = _pair(node.inputs[0]), _pair(node.inputs[1])
        if in_attention and (activation is None or weight is None):
            return False
        if activation is None:
            behind = any(use.node.op_type == "QuantizeLinear" for use in node.outputs[0].uses())
            return self._tell("quantized_behind" if behind and weight is not None else "float_layer", node)
        if weight is None:
            return self._tell("float_weights", node)
        self._look_at_weights(node, weight)
        return self._types_fit(node, activation, weight) and RULES.get(self.backend, _Explainer._fits_openvino)(
            self, node, weight
        )

    def _integer_operator(self, node: ir.Node) -> bool:
        if node.op_type in {"ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}:
            self._tell("run_time_ranges", node)
        scales = node.inputs[4] if node.op_type in {"QLinearConv", "QLinearMatMul", "QGemm"} else None
        if scales is not None and scales.const_value is not None and scales.const_value.size == 1:
            self._per_tensor(node, node.inputs[3])
        return True if self.backend == "onnxruntime" else self._tell("integer_operator", node)

    def _look_at_weights(self, node: ir.Node, weight: _Pair) -> None:
        if weight.scales == 1:
            self._per_tensor(node, weight.node.inputs[0])
        stored = weight.node.inputs[0]
        numbers = stored.const_value if stored is not None else None
        if self.saturates and numbers is not None and weight.dtype == ir.DataType.INT8:
            largest = np.abs(np.asarray(numbers.numpy()).astype(np.int16)).max(initial=0)
            if largest > LARGEST_WEIGHT[7]:
                self._tell("saturation", node)

    def _per_tensor(self, node: ir.Node, stored: ir.Value | None) -> None:
        shape = list(stored.shape) if stored is not None and stored.shape is not None else []
        if len(shape) > 1 and max(size for size in (shape[0], shape[-1]) if isinstance(size, int)) > 1:
            self._tell("per_tensor_weights", node)

    def _types_fit(self, node: ir.Node, activation: _Pair, weight: _Pair) -> bool:
        if activation.dtype not in EIGHT_BITS or weight.dtype not in EIGHT_BITS:
            return self._tell("wide_types", node)
        if activation.scales > 1:
            return self._tell("activation_scales", node)
        return True

    def _fits_openvino(self, node: ir.Node, weight: _Pair) -> bool:
        if node.op_type in {"Gemm", "MatMul"}:
            return True
        if weight.dtype == ir.DataType.UINT8 or weight.zero_points.any():
            return self._tell("asymmetric_weights", node)
        return True

    def _fits_tensorrt(self, node: ir.Node, weight: _Pair) -> bool:
        activation = _pair(node.inputs[0])
        bias = _pair(node.inputs[2]) if len(node.inputs) > 2 else None
        if bias is not None:
            self._tell("integer_bias", node)
        if weight.dtype == ir.DataType.UINT8 or weight.zero_points.any():
            return self._tell("asymmetric_weights", node)
        if activation is not None and (activation.dtype == ir.DataType.UINT8 or activation.zero_points.any()):
            return self._tell("asymmetric_activations", node)
        return bias is None

    def _fits_onnxruntime(self, node: ir.Node, weight: _Pair) -> bool:
        activation = _pair(node.inputs[0])
        if activation is not None and (activation.dtype, weight.dtype) == (ir.DataType.INT8, ir.DataType.UINT8):
            return self._tell("asymmetric_weights", node)
        if node.op_type == "ConvTranspose":
            return self._tell("no_kernel", node)
        bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        if bias is not None and _pair(bias) is None:  # convolutions' biases it quantizes itself
            return self._tell("float_bias", node)
        if activation is not None and activation.dtype == ir.DataType.INT8 and not _become_unsigned(node, activation):
            return self._tell("signed_activations", node)
        return self._returns_int8(node) if node.op_type == "Conv" else True

    def _returns_int8(self, node: ir.Node) -> bool:
        """Return whether everything that reads a convolution's result reads it quantized, a ReLU in between or not."""
        value, last = node.outputs[0], node
        uses = list(value.uses())
        while len(uses) == 1 and uses[0].node.op_type in CUTS and not value.is_graph_output():
            last, value = uses[0].node, uses[0].node.outputs[0]
            uses = list(value.uses())
        readers = [use.node for use in uses]
        if value.is_graph_output() or not readers or any(reader.op_type != "QuantizeLinear" for reader in readers):
            return self._tell("float_result", node)
        if last is not node and not _ends_at_lowest(readers[0]):
            return self._tell("zero_point_beside_relu", node)
        return True

    def _look_between(self, node: ir.Node) -> None:
        """Record an operator between a DQ and a Q that runs in float, and a Q/DQ pair between a layer and its ReLU."""
        pairs = [pair for value in node.inputs if (pair := _pair(value)) is not None and pair.source is not None]
        if not pairs or node.op_type in {"QuantizeLinear", "DequantizeLinear"} | WEIGHT_INPUT.keys():
            return
        source = pairs[0].source
        before = source.inputs[0].producer() if source is not None and source.inputs[0] is not None else None
        if node.op_type in CUTS and before is not None and before.op_type in WEIGHT_INPUT:
            self._tell("quantized_before_activation", node)
            return
        if self.backend != "onnxruntime" or any(value.is_graph_output() for value in node.outputs):
            return
        readers = [use.node for value in node.outputs for use in value.uses()]
        returns_int8 = bool(readers) and all(reader.op_type == "QuantizeLinear" for reader in readers)
        if returns_int8 and not (node.op_type in FUSED_BY_ONNXRUNTIME and self._reads_int8(node)):
            self._tell("float_island", node)

    def _reads_int8(self, node: ir.Node) -> bool:
        operands = [
            value for value in node.inputs if value is not None and (value.const_value is None or node.op_type in {"Add", "Mul"})
        ]
        return all(_pair(value) is not None for value in operands)


def _become_unsigned(node: ir.Node, activation: _Pair) -> bool:
    """Return whether ONNX Runtime turns what a layer reads and returns from int8 into uint8: only what one operator reads."""
    returned = node.outputs[0]
    while len(uses := list(returned.uses())) == 1 and uses[0].node.op_type in CUTS:
        returned = uses[0].node.outputs[0]
    behind = [use.node for use in returned.uses() if use.node.op_type == "QuantizeLinear"]
    signed = [quantize for quantize in (activation.source, *behind) if quantize is not None and _is_signed(quantize)]
    return all(_readers_of_floats(quantize) == 1 for quantize in signed)


def _is_signed(quantize: ir.Node) -> bool:
    zero = quantize.inputs[2] if len(quantize.inputs) > 2 else None
    return zero is not None and zero.dtype == ir.DataType.INT8


def _readers_of_floats(quantize: ir.Node) -> int:
    floats = [use.node.outputs[0] for use in quantize.outputs[0].uses() if use.node.op_type == "DequantizeLinear"]
    return sum(len(value.uses()) + value.is_graph_output() for value in floats)


def _ends_at_lowest(quantize: ir.Node) -> bool:
    """Return whether a Q's smallest integer stands for 0, so that it cuts off what a ReLU would."""
    zero = quantize.inputs[2] if len(quantize.inputs) > 2 else None
    if zero is None or zero.const_value is None:
        return zero is None  # uint8 with 0
    lowest = 0 if zero.const_value.dtype in {ir.DataType.UINT8, ir.DataType.UINT16} else -128
    return bool(np.all(_numbers(zero, 0) == lowest))


RULES: dict[str, Callable[[_Explainer, ir.Node, _Pair], bool]] = {
    "openvino": _Explainer._fits_openvino,
    "onnxruntime": _Explainer._fits_onnxruntime,
    "tensorrt": _Explainer._fits_tensorrt,
    "tensorrt-rtx": _Explainer._fits_tensorrt,
}
"""Whether a backend has an INT8 kernel for a layer whose operands are quantized to 8 bits."""
