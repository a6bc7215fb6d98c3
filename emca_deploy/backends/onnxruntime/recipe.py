"""The recipe of ONNX Runtime, and the check of what it computes in INT8 in any model."""

import numpy as np
import onnx_ir as ir

from emca_deploy.calibration.explaining.explainer import CUTS, Explainer, QdqPair, numbers_of, pair_of
from emca_deploy.calibration.placement.recipe import Recipe
from emca_deploy.calibration.rewrites.functions import average_pools_as_convolutions, hard_sigmoids_as_additions

__all__ = ["RECIPE", "OrtExplainer"]

FUSED = frozenset({
    "Add", "Mul", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax", "Concat", "MaxPool",
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Resize", "Identity",
    "Expand", "Where", "ArgMax", "Pad", "DepthToSpace", "Relu", "Clip",
})  # fmt: skip
"""Operators other than layers that ONNX Runtime computes in INT8 between a DQ and a Q."""


class OrtExplainer(Explainer):
    """Explains ONNX Runtime, which fuses an operator only when everything it reads and returns is quantized."""

    takes_integer_operators = True

    def fits(self, node: ir.Node, weight: QdqPair) -> bool:
        """Return whether there is an INT8 kernel for a layer whose operands are quantized to 8 bits."""
        activation = pair_of(node.inputs[0])
        if activation is not None and (activation.dtype, weight.dtype) == (ir.DataType.INT8, ir.DataType.UINT8):
            return self.tell("asymmetric_weights", node)
        if node.op_type == "ConvTranspose":
            return self.tell("no_kernel", node)
        bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        if bias is not None and pair_of(bias) is None:  # ONNX Runtime itself quantizes the biases of convolutions
            return self.tell("float_bias", node)
        if activation is not None and activation.dtype == ir.DataType.INT8 and not _become_unsigned(node, activation):
            return self.tell("signed_activations", node)
        return self._returns_int8(node) if node.op_type == "Conv" else True

    def _returns_int8(self, node: ir.Node) -> bool:
        """Return whether all readers of a convolution's result read it quantized, with or without a ReLU in between."""
        value, last = node.outputs[0], node
        uses = list(value.uses())
        while len(uses) == 1 and uses[0].node.op_type in CUTS and not value.is_graph_output():
            last, value = uses[0].node, uses[0].node.outputs[0]
            uses = list(value.uses())
        readers = [use.node for use in uses]
        if value.is_graph_output() or not readers or any(reader.op_type != "QuantizeLinear" for reader in readers):
            return self.tell("float_result", node)
        if last is not node and not _ends_at_lowest(readers[0]):
            return self.tell("zero_point_beside_relu", node)
        return True

    def look_behind(self, node: ir.Node) -> None:
        """Record an operator between a DQ and a Q that runs in float."""
        readers = [use.node for value in node.outputs for use in value.uses()]
        returns_int8 = bool(readers) and all(reader.op_type == "QuantizeLinear" for reader in readers)
        if returns_int8 and not (node.op_type in FUSED and self._reads_int8(node)):
            self.tell("float_island", node)

    def _reads_int8(self, node: ir.Node) -> bool:
        operands = [
            value for value in node.inputs if value is not None and (value.const_value is None or node.op_type in {"Add", "Mul"})
        ]
        return all(pair_of(value) is not None for value in operands)


def _become_unsigned(node: ir.Node, activation: QdqPair) -> bool:
    """Return whether ONNX Runtime turns a layer's int8 operand and result into uint8: only if each has a single reader."""
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
    """Return whether a Q's smallest integer stands for 0: then it clips what a ReLU would."""
    zero = quantize.inputs[2] if len(quantize.inputs) > 2 else None
    if zero is None or zero.const_value is None:
        return zero is None  # uint8 with 0
    lowest = 0 if zero.const_value.dtype in {ir.DataType.UINT8, ir.DataType.UINT16} else -128
    return bool(np.all(numbers_of(zero) == lowest))


# One float tensor between two convolutions costs more than INT8 gains. Activations are uint8 from the start, since ONNX Runtime's
# rewrite from int8 to uint8 misses tensors with several readers.
RECIPE = Recipe(
    "onnxruntime",
    False,
    True,
    frozenset({"AttentionPool", "Gate", "MaxPool", "GlobalAveragePool"}),
    "both",
    outputs=True,
    floats=frozenset({"ConvTranspose"}),
    on_cpu=True,
    rewrites=(hard_sigmoids_as_additions, average_pools_as_convolutions),
    explainer=OrtExplainer,
)
